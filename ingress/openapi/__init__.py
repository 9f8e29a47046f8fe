"""The OpenAPI 3.1 document of an application, made from the code that serves it, and a page that shows it offline.

`describe` holds what only a person can say of an operation; the rest is taken from where it is enforced: paths and
methods from the routes, schemas from the types (`schemas`), errors from the places that raise them (`refusals`).
`document` puts it together, `serve` answers with it. The console uses the same code for its own routes.
"""
