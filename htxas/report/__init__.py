"""What people look at: tables, plots and exports. Reads through the store's interface only."""
