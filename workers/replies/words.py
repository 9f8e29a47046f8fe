"""What a user is told when a job is over: the reply, or a sentence in its place.

The sentences are for people who know nothing of jobs; a channel's settings can replace them or leave them out.
"""

from shared.channels.api import ReplySettings
from shared.jobs import JobRecord, JobState

SILENCE = "none"
"""In a setting: say nothing."""
FAILED = "Sorry, something went wrong on our side and your message could not be answered. Please send it again."
TOO_LATE = "Sorry, we are very busy and could not get to your message in time. Please send it again."
_REFUSED = {
    "rate_limited": "You are writing faster than we can answer. Please wait a little, then send your message again.",
    "conversation_busy": "Your last message is still being answered. Please wait for that, then write again.",
    "too_large": "Your message is too long for us. Please send a shorter one.",
}
REFUSED = "Sorry, we cannot answer you at the moment. Please try again later."


def words_of(record: JobRecord, settings: ReplySettings) -> str:
    """Empty: there is nothing to say, as for a message that its user or a later one has cancelled."""
    match record.state:
        case JobState.SUCCEEDED:
            return record.reply or ""
        case JobState.DEAD | JobState.EXPIRED:
            usual = FAILED if record.state is JobState.DEAD else TOO_LATE
            return _or_silence(settings.failure_text or usual)
        case JobState.REJECTED:
            code = record.error.code if record.error else ""
            return _or_silence(settings.refusal_text or _REFUSED.get(code, REFUSED))
        case _:
            return ""


def _or_silence(text: str) -> str:
    return "" if text == SILENCE else text
