#!/usr/bin/env bash
# Check, measure and train on a machine with a CUDA GPU, in two calls:
#
#     benchmarks/gpu.sh check    # at most 5 minutes: CUDA tests; memory and speed in bf16, eager
#                                # and compiled; crossover of attention; throughput of training
#     benchmarks/gpu.sh train    # at most 9 minutes: CIFAR-10 in the paper's setting; recall of
#                                # the memory
#
# Try a call on any machine first. `benchmarks/gpu.sh check cpu` and `benchmarks/gpu.sh train cpu`
# run every part with tiny sizes and without the compiler, in a few minutes on one CPU thread.
#
# Variables:
#   OUT           folder of logs, JSON and figures (results/gpu)
#   PYTHON        Python of an environment with PyTorch (python)
#   RMAAT_DATA    data folder; for `train` it contains CIFAR-10 and must be writable (datasets)
#   STEPS         training steps of CIFAR-10 (5000)
#   RMAAT_COMMIT  commit to record if these files are a copy without git
#
# If a part fails or reaches its time limit, the next one still runs, and the exit status is 1. The
# part's results until then stay in OUT. `train` with the same OUT resumes.
set -uo pipefail
cd "$(dirname "$0")/.."
call=${1:-} device=${2:-cuda}
case "$call $device" in
"check cuda" | "check cpu" | "train cuda" | "train cpu") ;;
*)
    echo "usage: benchmarks/gpu.sh check|train [cuda|cpu]"
    exit 2
    ;;
esac
OUT=${OUT:-results/gpu}
PYTHON=${PYTHON:-python}
# Update progress bars rarely, because they would fill the logs.
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 TQDM_MININTERVAL=10 RMAAT_COMMIT="${RMAAT_COMMIT:-}"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$OUT"
failed=0
# A CPU run only tests the parts, so give its slower processes more time.
slack=$([ "$device" = cpu ] && echo 4 || echo 1)

part() { # seconds, name, command ...
    local limit=$1 name=$2 started=$SECONDS
    shift 2
    echo "== $name"
    timeout -s INT -k 5 "$((limit * slack))" "$@" 2>&1 | tee "$OUT/$name.log"
    local status=${PIPESTATUS[0]}
    echo "== $name: $((SECONDS - started)) s, exit status $status"
    if [ "$status" -ne 0 ]; then
        failed=1
    fi
}

rmaat() { # seconds, name, arguments of the command line ...
    part "$1" "$2" "$PYTHON" -m rmaat "${@:3}"
}

compare() { # seconds, name, memory or speed, further arguments ...
    rmaat "$1" "$2" compare "$3" --device "$device" --bf16 true "${shape[@]}" --output "$OUT/$2" "${@:4}"
}

check() {
    local methods=(replay full checkpoint one_segment rmt transformer) timed=(replay full rmt)
    local long=65536 floor=one_segment compiled=true lengths=() examples=(20000 500 500) steps=300
    # An empty shape means the reference shape of `rmaat compare`, which is that of the paper's
    # Retrieval task: 8,192 tokens in 16 segments.
    shape=()
    if [ "$device" = cpu ]; then
        methods=(replay) timed=(replay) floor="" compiled=false
        shape=(--segment_length 128 --batch 4 --hidden_size 64 --num_hidden_layers 1 --intermediate_size 64 --tokens 512)
        long=1024 lengths=(--tokens 128 256) examples=(64 16 16) steps=2
    fi
    local rounds=(--repeats 1 --steps 7 --warm_up 3)
    # Name the files with CUDA tests, because collecting all files takes longer than those tests.
    local tests
    mapfile -t tests < <(grep -rl 'mark\.gpu' tests)
    part 65 tests "$PYTHON" -m pytest -q -p no:logging --disable-warnings -m gpu "${tests[@]}"
    compare 45 memory memory --methods "${methods[@]}"
    compare 25 memory-long memory --methods replay $floor --tokens "$long" --steps 2
    compare 35 speed speed --methods "${timed[@]}" "${rounds[@]}"
    compare 35 memory-compiled memory --torch_compile "$compiled" --methods replay
    compare 25 speed-compiled speed --torch_compile "$compiled" --methods replay "${rounds[@]}"
    part 15 attention "$PYTHON" benchmarks/attention.py --device "$device" --bf16 "${lengths[@]}" --output "$OUT/attention"
    rmaat 15 data data listops_short --data_dir "$scratch" \
        --num_train "${examples[0]}" --num_val "${examples[1]}" --num_test "${examples[2]}"
    rmaat 25 training train --recipe listops_short --data_dir "$scratch" --output_dir "$OUT/training" \
        --overwrite true --bf16 true --max_steps "$steps" --warmup_steps 1 --eval_steps "$steps"
}

train() {
    local steps=${STEPS:-5000} changes="" recalled=(rmaat "rmaat[retention_schedule=none]" rmt)
    local tests=(--segments 1 4 16 64 256 1024 --examples 64)
    if [ "$device" = cpu ]; then
        changes="[torch_compile=false,per_device_train_batch_size=4,eval_examples=16,test_examples=16]"
        steps=2 recalled=(rmaat) tests=(--distance 3 --segments 1 8 --examples 16 --max_steps 2)
        export RMAAT_DATA="$scratch" RMAAT_CACHE="$scratch/cache"
        "$PYTHON" - "$scratch/cifar10_gray.npz" <<'PY'
import sys
import numpy as np
sizes = {"train": 5100, "test": 20}
pixels = {f"x_{part}": np.zeros((size, 32, 32), np.uint8) for part, size in sizes.items()}
np.savez_compressed(sys.argv[1], **pixels, **{f"y_{part}": np.arange(size, dtype=np.uint8) % 10 for part, size in sizes.items()})
PY
        "$PYTHON" -m rmaat data recall --distance 3 --num_train 64 --num_val 16 --num_test 16 >"$OUT/data.log" || failed=1
    fi
    rmaat 280 cifar10 compare accuracy --preset paper --tasks cifar10 --seeds 1 --models "rmaat$changes" "rmt$changes" \
        "rmaat_plus$changes" --max_steps "$steps" --workers 3 --output "$OUT/cifar10"
    rmaat 235 recall compare recall --models "${recalled[@]}" --seeds 1 --device "$device" --workers "${#recalled[@]}" \
        "${tests[@]}" --output "$OUT/recall"
}

if [ "$device" = cuda ]; then
    "$PYTHON" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "PyTorch sees no CUDA device")' || exit 2
    if [ "$call" = train ] && [ ! -e "${RMAAT_DATA:-datasets}/cifar10_gray.npz" ] &&
        [ ! -e "${RMAAT_DATA:-datasets}/cifar-10-batches-py" ]; then
        echo "no CIFAR-10 in ${RMAAT_DATA:-datasets}; set RMAAT_DATA to a data folder that has it"
        exit 2
    fi
fi
"$call"
exit $failed
