# SPDX-FileCopyrightText: The Metaparticle Authors
# SPDX-License-Identifier: Apache-2.0

import time


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.5)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served by gunicorn\n"]
