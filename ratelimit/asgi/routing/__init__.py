"""Which endpoint a request is for, known before the app routes it."""
