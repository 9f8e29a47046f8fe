"""The operations on tenants and their keys, described; `operations.py` lists them with the others."""

from collections.abc import Mapping

from ingress.openapi import pieces
from ingress.openapi.describe import Body, Operation, Parameter, Schema, ref
from ingress.openapi.schemas import of_model, of_resource
from ops.console.openapi.shapes import AT_US, PAGE, all_of, located, one, operations, page, query
from ops.tenants.asks import KEY_ID, TENANT_ID, ChangeBody, CreateBody, KeyBody, TenantsQuery
from ops.tenants.books import TenantBooks
from ops.tenants.document import SettingsDocument
from ops.tenants.records import ApiKey, Change, NewKey, Tenant

_ACME = Tenant(
    id="acme",
    name="Acme Ltd",
    settings={"plan": "pro", "rates": {"user_per_min": 20}},
    settings_version=3,
    created_us=1_795_246_200_000_001,
    updated_us=AT_US,
    disabled_us=None,
)
_KEY = ApiKey(
    id="3f9a0c55d1e2",
    tenant="acme",
    label="web shop",
    scopes=["chat"],
    created_us=1_795_246_200_000_001,
    created_by="cli:ada",
    expires_us=None,
    revoked_us=None,
)
_CHANGE = Change(
    id=pieces.EXAMPLE_ID,
    tenant="acme",
    action="changed",
    changed_us=AT_US,
    changed_by="key:0c55d1e23f9a",
    before={"name": "Acme Ltd", "settings": {"plan": "pro"}, "settings_version": 2},
    after={"name": "Acme Ltd", "settings": _ACME.settings, "settings_version": 3},
)
_MADE = NewKey("sk-sb-…", _KEY)

_TENANT = Parameter(
    name="tenant_id",
    where="path",
    description="The tenant's id. An `admin` key has no other than its own.",
    schema={"type": "string", "pattern": TENANT_ID},
    example="acme",
)
_KEY_ID = Parameter(
    name="key_id",
    where="path",
    description="The key's id: the first 12 characters of its SHA-256.",
    schema={"type": "string", "pattern": KEY_ID},
    example=_KEY.id,
)
_PAGE = tuple(query(TenantsQuery, PAGE).values())


def components() -> Mapping[str, Schema]:
    settings = ref("SettingsDocument")
    create, change = of_model(CreateBody), of_model(ChangeBody)
    create["CreateBody"]["properties"]["settings"] = settings
    change["ChangeBody"]["properties"]["settings"] = settings
    return {
        **of_model(SettingsDocument),
        **create,
        **change,
        **of_model(KeyBody),
        "Tenant": of_resource(
            _ACME.resource(),
            Tenant,
            settings=settings,
            in_force={**settings, "description": "The settings with what the plan gives where they say nothing."},
        ),
        "ApiKey": of_resource(_KEY.resource(), ApiKey),
        "NewApiKey": of_resource(
            _MADE.resource(), ApiKey, key={"type": "string", "description": "Shown this once, and kept by nobody."}
        ),
        "TenantChange": of_resource(_CHANGE.resource(), Change, id=pieces.UUID),
    }


_operation = operations("Tenants")
_TENANT_ANSWER = one("The tenant.", "Tenant", _ACME.resource())

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/v1/tenants"): _operation(
        "list_tenants",
        "List tenants",
        "By id. An `admin` key finds its own tenant only.",
        {200: page("Tenant", _ACME.resource())},
        parameters=_PAGE,
        raised_by=(TenantBooks.writing,),
    ),
    ("POST", "/v1/tenants"): _operation(
        "create_tenant",
        "Make a tenant",
        "Its settings may be empty: then everything is as its plan, `free`, has it.",
        {
            201: one(
                "Made.",
                "Tenant",
                _ACME.resource(),
                headers=located(),
            )
        },
        scope="operator",
        body=Body(
            schema=ref("CreateBody"),
            examples={"one": {"id": "acme", "name": "Acme Ltd", "settings": {"plan": "pro"}}},
        ),
        raised_by=(TenantBooks.create, TenantBooks.writing),
    ),
    ("GET", "/v1/tenants/{tenant_id}"): _operation(
        "get_tenant",
        "Look at a tenant",
        "`settings` is what it was given, `in_force` what holds with its plan's defaults.",
        {200: _TENANT_ANSWER},
        parameters=(_TENANT,),
        raised_by=(TenantBooks.find,),
    ),
    ("PATCH", "/v1/tenants/{tenant_id}"): _operation(
        "change_tenant",
        "Change a tenant's settings",
        "`settings` is a JSON merge patch (RFC 7396): null takes a setting back to the plan's. In force everywhere "
        "within a second. An `admin` key can change neither the plan nor a rate or budget to more than the plan gives. "
        "Every change is written down with who made it.",
        {200: _TENANT_ANSWER},
        parameters=(_TENANT,),
        body=Body(
            required=False,  # nothing changes nothing
            schema=ref("ChangeBody"),
            examples={"a rate": {"settings": {"rates": {"user_per_min": 20}}, "settings_version": 2}},
        ),
        raised_by=(TenantBooks.change, TenantBooks.find, TenantBooks.writing),
    ),
    ("POST", "/v1/tenants/{tenant_id}/disable"): _operation(
        "disable_tenant",
        "Disable a tenant",
        "Its keys are refused within a second, its waiting jobs end `rejected`. Nothing is deleted.",
        {200: _TENANT_ANSWER},
        scope="operator",
        parameters=(_TENANT,),
        raised_by=(TenantBooks.switch, TenantBooks.writing),
    ),
    ("POST", "/v1/tenants/{tenant_id}/enable"): _operation(
        "enable_tenant",
        "Enable a tenant",
        "As it was before.",
        {200: _TENANT_ANSWER},
        scope="operator",
        parameters=(_TENANT,),
        raised_by=(TenantBooks.switch, TenantBooks.writing),
    ),
    ("GET", "/v1/tenants/{tenant_id}/changes"): _operation(
        "list_tenant_changes",
        "Who changed what",
        "The newest first, keys included.",
        {200: page("TenantChange", _CHANGE.resource())},
        parameters=(_TENANT, *_PAGE),
    ),
    ("GET", "/v1/tenants/{tenant_id}/keys"): _operation(
        "list_keys",
        "List a tenant's API keys",
        "The newest first, revoked and expired ones too; never the keys themselves.",
        {200: all_of("ApiKey", _KEY.resource())},
        parameters=(_TENANT,),
        raised_by=(TenantBooks.find,),
    ),
    ("POST", "/v1/tenants/{tenant_id}/keys"): _operation(
        "create_key",
        "Make an API key",
        "The answer is the only place that ever shows it. Only an operator can give the scope `operator`.",
        {201: one("Made.", "NewApiKey", _MADE.resource())},
        parameters=(_TENANT,),
        body=Body(
            schema=ref("KeyBody"),
            examples={"one": {"label": "web shop", "scopes": ["chat"], "expires_at": "2027-12-31T00:00:00Z"}},
            required=False,
        ),
        raised_by=(TenantBooks.create_key, TenantBooks.writing),
    ),
    ("DELETE", "/v1/keys/{key_id}"): _operation(
        "revoke_key",
        "Revoke an API key",
        "It is refused everywhere within a second. Its row stays. Repeating it changes nothing.",
        {200: one("The key.", "ApiKey", _KEY.resource())},
        parameters=(_KEY_ID,),
        raised_by=(TenantBooks.revoke_key, TenantBooks.writing),
    ),
}
