"""Dead jobs and queues as operators meet them."""
