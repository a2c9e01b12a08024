"""What a person does in a browser, for tests/cluster/oidc.rs: logs in as SUBJECT at the URL, and follows wherever that leads.

Usage: oidc_browser.py CA_FILE URL SUBJECT
"""

import ssl
import sys
import urllib.parse
import urllib.request

ca_file, url, subject = sys.argv[1:]
form = urllib.parse.urlencode({"sub": subject}).encode()
context = ssl.create_default_context(cafile=ca_file)
with urllib.request.urlopen(urllib.request.Request(url, data=form), context=context) as page:
    print(page.geturl().split("?")[0])
