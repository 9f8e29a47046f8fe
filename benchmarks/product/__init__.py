"""The product's figures: messages accepted, time added to a model's answer, whole turns, and what each of them costs.

Everything is real but the model: processes as in production, an embedded Valkey and PostgreSQL, HTTP and SDK. The model
is a server of fixed bytes. Each figure stands beside a peer measured in the same run, on the same servers.
"""
