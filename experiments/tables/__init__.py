"""The paper's tables: what each one holds, as data; one engine that trains, scores and writes them."""
