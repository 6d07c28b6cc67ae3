"""The two admin sites, and what the apps' admin pages are made of."""
