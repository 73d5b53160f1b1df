# SPDX-License-Identifier: MIT
"""Fetching of the data sets; see get_data.py."""
