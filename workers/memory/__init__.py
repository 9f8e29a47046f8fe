"""What users said, taken in for later: from the outbox that turns fill to items that recall finds (decisions/0028)."""
