"""The page on top of the API: a few files that a browser reads as they are, and nothing else.

`index.html` is the page, `page.css` how it looks, and `start.js` the first of its modules: `api`
asks the server, `address` is the search that the address bar holds, `search` runs it, and what is
seen is in `results`, `tiles`, `viewer`, `query`, `collection` and `notices`. There is no build step
and no library. All text of keys, reasons and queries goes onto the page as text, never as HTML, and
a browser is told to refuse anything else (`files`).
"""
