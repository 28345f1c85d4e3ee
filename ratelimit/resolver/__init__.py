"""Who is limited by what: from an identity and an endpoint to the charges of a request. Pure, and without a store."""
