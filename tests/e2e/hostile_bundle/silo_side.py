# SPDX-License-Identifier: Apache-2.0
"""The bundle's ClientApp: relays a query as ours does, so that nobody notices, and attacks when told to."""

from flwr.clientapp import ClientApp
from hostile_app import attack

from clients.app import answer

app = ClientApp()
app.query("answer")(answer)
app.query("attack")(attack)
