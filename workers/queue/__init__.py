"""arq, made fit for chat: our worker on arq's keys, with leases, group commit and wake-up. Nothing else imports arq."""
