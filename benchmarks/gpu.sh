#!/usr/bin/env bash
# On a machine with a CUDA GPU, at most 9 minutes: the CUDA tests, then memory and speed at the paper's shapes in bf16,
# as they are and compiled, and the attention's crossover. JSON and figures go to $OUT (results/gpu by default).
#
#     [OUT=folder] [PYTHON=python] benchmarks/gpu.sh
#
# Retrieval is the paper's longest: 8,192 tokens in 16 segments; batch, width and depth are the reference shape's. A part that
# fails or runs out of its time does not stop the next; the exit status is 1 if one did.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-results/gpu}
PYTHON=${PYTHON:-python}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
mkdir -p "$OUT"
failed=0

part() { # seconds, name, command ...
    local limit=$1 name=$2
    shift 2
    echo "== $name"
    timeout "$limit" "$@" 2>&1 | tee "$OUT/$name.log"
    local status=${PIPESTATUS[0]}
    if [ "$status" -ne 0 ]; then
        echo "== $name: exit status $status"
        failed=1
    fi
}

"$PYTHON" -c 'import torch' || { echo "$PYTHON has no PyTorch; give PYTHON=the python of its environment"; exit 2; }
"$PYTHON" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || { echo "PyTorch sees no CUDA device"; exit 2; }
own=(replay full checkpoint one_segment rmt transformer)
part 110 tests "$PYTHON" -m pytest -q -m gpu tests
part 115 memory "$PYTHON" -m rmaat compare memory --device cuda --bf16 true --methods "${own[@]}" rmt_replay \
    --tokens 8192 65536 --output "$OUT/eager"
part 100 speed "$PYTHON" -m rmaat compare speed --device cuda --bf16 true --methods replay full rmt \
    --repeats 1 --steps 7 --warm_up 3 --output "$OUT/eager"
part 80 memory-compiled "$PYTHON" -m rmaat compare memory --device cuda --bf16 true --torch_compile true \
    --methods replay full --output "$OUT/compiled"
part 90 speed-compiled "$PYTHON" -m rmaat compare speed --device cuda --bf16 true --torch_compile true \
    --methods replay full --repeats 1 --steps 7 --warm_up 3 --output "$OUT/compiled"
part 30 attention "$PYTHON" benchmarks/attention.py --device cuda --bf16 --output "$OUT/attention"
exit $failed
