"""What memory finds, on a public set (`locomo`), and how fast it is with a million memories (`scale`)."""
