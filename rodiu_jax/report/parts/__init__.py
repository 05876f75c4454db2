"""What pages and terminals are made of: sections, tables, pictures, and how numbers are written."""
