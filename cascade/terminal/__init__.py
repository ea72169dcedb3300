"""What the commands of the search engine show: bars, tables, contact sheets."""
