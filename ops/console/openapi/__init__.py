"""The console's API document, by the code that makes the ingress's."""
