"""Campaigns: many cells computed on processes of one machine or of a Ray cluster, with a manifest, resumable."""
