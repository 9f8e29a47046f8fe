"""The console process: HTTP for the people who run the product, tenants' own administrators included.

`operator` keys reach every tenant, `admin` keys their own. Errors, keys and logs are as in ingress, by its own code.
"""
