"""What was used and what it cost, for those who run the product and for tenants: reports over the ledger.

Used by `switchboard usage` and the console alike. A question (`asks`) goes to the ledger (`books`) and comes back as a
report (`report`); `spans` knows the calendar. All sums are the database's, of one instant, in integers.
"""
