"""The leaderboard as an HTML page: its rows, and the page around them."""
