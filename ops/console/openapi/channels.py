"""The operations on channels, described; `operations.py` lists them with the others."""

from collections.abc import Mapping

from ingress.openapi.describe import Body, Operation, Parameter, Schema, nullable, ref
from ingress.openapi.schemas import of_model, of_resource
from ops.channels.asks import (
    CHANNEL_ID,
    ChangeChannelBody,
    ChannelsQuery,
    CreateChannelBody,
    KeptQuery,
    RotateChannelBody,
)
from ops.channels.books import ChannelBooks
from ops.channels.records import ChannelRow, KeptRow, Pause
from ops.console.openapi.shapes import PAGE, TENANT, all_of, located, one, operations, page, query

_ROW = ChannelRow(
    id="ch-4k2m9x0q7w1e5r8t",
    tenant="acme",
    kind="whatsapp",
    name="Shop",
    agent="support",
    domain="shop",
    feature=None,
    settings={"phone_number_id": "106540352242922"},
    credentials={"app_secrets": 1, "verify_token": 1, "access_token": 1},
    version=1,
    created_us=1_795_246_200_000_001,
    updated_us=1_795_246_200_000_001,
)
_PAUSE = Pause(
    code="190",
    message="Invalid OAuth access token.",
    status=401,
    since_us=1_795_246_200_000_001,
    until_us=1_795_246_260_000_001,
)
_KEPT = KeptRow(
    id="0c55d1e23f9a0c55d1e23f9a0c55d1e2",
    channel=_ROW.id,
    reason="unsupported",
    payload={"id": "wamid.ID", "type": "unsupported"},
    times=1,
    received_us=1_795_246_200_000_001,
)
_ID = Parameter(
    name="channel_id",
    where="path",
    description="The channel's id, as in the path that its provider calls.",
    schema={"type": "string", "pattern": CHANNEL_ID},
    example=_ROW.id,
)


def components() -> Mapping[str, Schema]:
    return {
        **of_model(CreateChannelBody),
        **of_model(ChangeChannelBody),
        **of_model(RotateChannelBody),
        "Channel": of_resource(
            _ROW.resource(),
            ChannelRow,
            webhook={"type": "string", "description": "The path at the ingress that the provider is told to call."},
            paused=nullable(ref("ChannelPause")),
        ),
        "ChannelPause": of_resource(_PAUSE.resource(), Pause),
        "InboundKept": of_resource(_KEPT.resource(), KeptRow),
    }


_operation = operations("Channels", ChannelBooks.writing)
_ONE = one("The channel.", "Channel", _ROW.resource())
_CREDENTIALS = {"app_secrets": ["…"], "verify_token": "…", "access_token": "…"}
_CREATE = {"kind": "whatsapp", "agent": "support", "settings": _ROW.settings, "credentials": _CREDENTIALS}

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/v1/channels"): _operation(
        "list_channels",
        "List channels",
        "By id; never their credentials.",
        {200: page("Channel", _ROW.resource())},
        parameters=tuple(query(ChannelsQuery, {"tenant": TENANT, **PAGE}).values()),
    ),
    ("POST", "/v1/channels"): _operation(
        "create_channel",
        "Connect a messenger",
        "Give its provider `webhook` to call. Credentials are kept encrypted and shown by nothing.",
        {201: one("Made.", "Channel", _ROW.resource(), headers=located())},
        raised_by=(ChannelBooks.create,),
        body=Body(schema=ref("CreateChannelBody"), examples={"WhatsApp": _CREATE}),
    ),
    ("GET", "/v1/channels/{channel_id}"): _operation(
        "get_channel",
        "Look at a channel",
        "`credentials` says which there are.",
        {200: _ONE},
        raised_by=(ChannelBooks.find,),
        parameters=(_ID,),
    ),
    ("PATCH", "/v1/channels/{channel_id}"): _operation(
        "change_channel",
        "Change a channel",
        "`settings` and `credentials` are JSON merge patches (RFC 7396). In force everywhere within a second.",
        {200: _ONE},
        raised_by=(ChannelBooks.change,),
        parameters=(_ID,),
        body=Body(schema=ref("ChangeChannelBody"), examples={"agent": {"agent": "sales", "version": 1}}),
    ),
    ("DELETE", "/v1/channels/{channel_id}"): _operation(
        "remove_channel",
        "Disconnect a messenger",
        "Its credentials are forgotten; what it brought stays in the books.",
        {200: _ONE},
        raised_by=(ChannelBooks.remove,),
        parameters=(_ID,),
    ),
    ("POST", "/v1/channels/{channel_id}/rotate"): _operation(
        "rotate_channel",
        "Give a channel new secrets",
        "Of secrets that can have several values the older ones stay valid beside the new one, as many as `keep` says.",
        {200: _ONE},
        raised_by=(ChannelBooks.rotate,),
        parameters=(_ID,),
        body=Body(
            schema=ref("RotateChannelBody"), examples={"app secret": {"credentials": {"app_secrets": "…"}, "keep": 1}}
        ),
    ),
    ("POST", "/v1/channels/{channel_id}/resume"): _operation(
        "resume_channel",
        "Try a paused channel's replies again",
        "A channel whose provider refuses it as a whole is paused: its replies wait, in their order, and one of them "
        "tries from time to time. This has all of them tried at once, as every change of the channel does.",
        {200: _ONE},
        raised_by=(ChannelBooks.resume,),
        parameters=(_ID,),
    ),
    ("GET", "/v1/channels/{channel_id}/kept"): _operation(
        "list_kept",
        "What came in and is no message",
        "The newest first: unknown kinds, malformed parts of a batch, messages for another number. Kept for 30 days.",
        {200: all_of("InboundKept", _KEPT.resource(), "The newest.")},
        raised_by=(ChannelBooks.kept, ChannelBooks.find),
        parameters=(_ID, *query(KeptQuery, PAGE).values()),
    ),
}
