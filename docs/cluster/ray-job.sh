#!/usr/bin/env bash
# `ray job submit`: the build runs on the cluster's head node and survives the end of this terminal.
# RAY_ADDRESS is the dashboard of the cluster, such as http://head:8265.
# The keys of the store and of the models are in the environment of the cluster's nodes: they never travel.
set -euo pipefail
: "${RAY_ADDRESS:?the address of the dashboard, such as http://head:8265}"

ray job submit --address "$RAY_ADDRESS" --working-dir . --submission-id "my-cot-$(date +%Y%m%d-%H%M%S)" -- \
  p2r-data build my-recipe.yaml --out /data/my-cot --work s3://my-bucket/my-cot --executor ray --ray-actors 4
