"""Every Redis key, built in one file. The Lua side builds the same ones in `lua/_prelude.lua`; a test compares them.

`arq:*` keys are arq's own, with arq's meaning. `<queue>:*` belong to one queue, `sb:*` to the deployment.

    <queue>                  zset    id → due, Unix ms; a running job stands here with its score negated
    <queue>:delayed          zset    id → due ms of a retry; its original score is in the job record
    <queue>:heads            hash    tenant → its heads that are due in the queue; 64 at most are let in
    <queue>:parked:<tenant>  zset    further heads of a tenant: id → ms they became eligible
    <queue>:parked           hash    tenant → how many are parked
    <queue>:expiry           zset    id → ms at which a never-started job expires (followers included)
    <queue>:debounce         zset    id → ms until which a head waits for more messages to join it
    <queue>:leases           zset    worker incarnation → lease deadline ms
    <queue>:slots            hash    worker incarnation → jobs it runs at once
    <queue>:held:<worker>    hash    id → claim (Unix µs) this incarnation runs; the fence of every write a worker makes
    <queue>:cancel:<worker>  set     ids this incarnation should cancel
    <queue>:wake             list    wake tokens, capped
    sb:job:<id>              hash    the job record (shared.jobs.JobRecord)
    sb:conv:<tenant>:<conv>  list    unfinished jobs of a conversation, in order; only the head is eligible
    sb:owner:<tenant>:<conv> string  the one user of a conversation
    sb:taken:<id>            list    messages in this job's turn: `<state> <id> <created_us> <taken in us> <payload>`
    sb:events:<id>           stream  events of a job, capped; entry id `<seq>-0`; start and end are in the record
    sb:calls:<id>            hash    call id → ledger row (JSON) of calls whose rows Postgres does not have yet, and
                                     `<call id>:hold` → what is reserved for one that is not settled (JSON)
    sb:idem:<tenant>:<hash>  string  `<job id> <fingerprint>`
    sb:apikey:<sha256>       string  JSON of the key's tenant, scopes and terms (shared.tenants)
    sb:rate:<window>         list    moments (Unix µs) at which a rate window let something in (shared.rates)
    sb:next:<tenant>:<id>    string  somebody is about to go on from this response; no more than one at a time
    sb:channel:<id>          string  JSON of a channel: tenant, settings, credentials (encrypted), terms
    sb:notice:<tenant>:<conv> string  a user was told of a refusal; no more until it expires
    sb:inbox                 stream  what channels brought and is no message, until Postgres has it
    sb:working               list    JSON of jobs of channels whose work has begun, capped; whoever shows it pops them
    sb:spent:<scope>         hash    usd, usd_held, tok, tok_held of a budget scope (shared.budgets)
    sb:model:<spec>          hash    of `provider:model`: its circuit breaker, a pause, what its provider says is left
    sb:models                set     those that were ever open or paused
    sb:provider:<p>:calls    hash    call id → `<queue> <worker>` of calls under way, where their number is bounded
    sb:provider:<p>:rpm      hash    second → calls made in it, of the last minute, with their sum; `tpm`: tokens
    sb:provider:<p>:swept    string  the calls of workers that are gone were looked for a moment ago
    sb:money                 hash    epoch; stands while the counters can be believed, gone when Redis lost its memory
    sb:money:closed          string  Unix ms at which that was noticed
    sb:money:lock            string  token of the process that makes the counters anew
    sb:money:unposted        zset    ledger rows that only a worker's memory has → Unix ms until which to wait
    sb:background:held:tasks hash    id of a memory task → its claim: the fence of its calls (workers.background)
    sb:background:leases     zset    `tasks` → Unix ms: what they hold at a provider is given back by whoever takes over
    sb:cache:<tenant>:<hash> string  `<kept at, Unix ms> <answer (JSON)>` of the response cache; expires by itself
    sb:flight:<tenant>:<hash> string token of whoever asks a model for such an answer now; `-`: all ask by themselves
    sb:erased:<tenant>       string  Unix ms at which a user of the tenant was erased: nothing asked before is kept
    sb:cached:order          zset    answers → kept at, Unix ms: the oldest make room
    sb:cached:sizes          hash    answers → bytes; the empty name: all together
    sb:embedding:open        zset    `<batch> <process> <tenant>` of embeddings under way → Unix ms till others may
    sb:embedding:held:<proc> hash    batch → claim (Unix µs); the fence of what is reserved for it in `sb:calls:<batch>`
    sb:ended                 stream  ends of jobs that never started, with payload, until Postgres has them
    sb:deployment            string  id of the deployment this database belongs to
    sb:scrape                zset    `<queue> <host>:<port>` of a worker's /metrics → Unix s until which it holds
    sb:probe                 string  written by readiness probes, expires by itself
"""

DEFAULT_QUEUE = "arq:queue"
ENDED = "sb:ended"
INBOX = "sb:inbox"
WORKING = "sb:working"
DEPLOYMENT = "sb:deployment"
MONEY = "sb:money"
BACKGROUND = "sb:background"
"""In the place of a queue's key where no queue is: memory tasks wait in Postgres."""
UNPOSTED = "sb:money:unposted"
PROBE = "sb:probe"
SCRAPE = "sb:scrape"
MODELS = "sb:models"
EMBEDDING = "sb:embedding"
"""In the place of a queue, for the money of embeddings."""
EMBEDDING_OPEN = "sb:embedding:open"
CACHED_ORDER = "sb:cached:order"
CACHED_SIZES = "sb:cached:sizes"


def queue(name: str) -> str:
    """Key of a queue; `default` is arq's own default queue."""
    return DEFAULT_QUEUE if name == "default" else f"{DEFAULT_QUEUE}:{name}"


def leases(name: str) -> str:
    """Key of a queue's worker leases, by the queue's name."""
    return f"{queue(name)}:leases"


def arq_job(job_id: str) -> str:
    return f"arq:job:{job_id}"


def job(job_id: str) -> str:
    return f"sb:job:{job_id}"


def of_message(queue_name: str, tenant: str, conversation_id: str, job_id: str, digest: str) -> list[str]:
    """The keys of an admission that every message has, in the order of `admit.lua`; made for each message, at once."""
    return [
        DEFAULT_QUEUE if queue_name == "default" else queue(queue_name),
        f"sb:job:{job_id}",
        f"arq:job:{job_id}",
        f"sb:conv:{tenant}:{conversation_id}",
        f"sb:owner:{tenant}:{conversation_id}",
        f"sb:idem:{tenant}:{digest}",
    ]


def events(job_id: str) -> str:
    return f"sb:events:{job_id}"


CALLS = "sb:calls:"


def calls(job_id: str) -> str:
    return CALLS + job_id


def held(queue: str, worker: str) -> str:
    """What of a queue a worker runs: id → claim."""
    return f"{queue}:held:{worker}"


HOLD = ":hold"
"""After a call id in `calls`: the field of what is reserved for it."""


def conversation(tenant: str, conversation_id: str) -> str:
    return f"sb:conv:{tenant}:{conversation_id}"


def owner(tenant: str, conversation_id: str) -> str:
    return f"sb:owner:{tenant}:{conversation_id}"


def idempotency(tenant: str, digest: str) -> str:
    return f"sb:idem:{tenant}:{digest}"


def following(tenant: str, job_id: str) -> str:
    return f"sb:next:{tenant}:{job_id}"


def api_key(sha256: str) -> str:
    return f"sb:apikey:{sha256}"


def rate(*parts: str) -> str:
    """One rate window, e.g. `rate("user", tenant, user_id)`."""
    return "sb:rate:" + ":".join(parts)


SPENT = "sb:spent:"


def channel(channel_id: str) -> str:
    return f"sb:channel:{channel_id}"


def notice(tenant: str, conversation_id: str) -> str:
    return f"sb:notice:{tenant}:{conversation_id}"


def spent(*parts: str) -> str:
    """The counter of one budget scope, e.g. `spent("month", tenant, "202611")`."""
    return SPENT + ":".join(parts)


def model(spec: str) -> str:
    """What is heard of a `provider:model`."""
    return f"sb:model:{spec}"


def provider_calls(provider: str) -> str:
    return f"sb:provider:{provider}:calls"


def cached(tenant: str, digest: str) -> str:
    return f"sb:cache:{tenant}:{digest}"


def flight(tenant: str, digest: str) -> str:
    return f"sb:flight:{tenant}:{digest}"


def erased(tenant: str) -> str:
    return f"sb:erased:{tenant}"


def notify_channel(job_id: str) -> str:
    """Pub/sub channel of a job. Message `e`: new events; `t`: the job reached a terminal state."""
    return f"sb:notify:{job_id}"
