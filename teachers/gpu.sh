#!/bin/sh
# Everything on one GPU: judge, autoencoder, A, B and C, each exported and measured.
#   sh teachers/gpu.sh CACHE OUTPUT [MINUTES]
# CACHE holds pack.safetensors (see pack.py); OUTPUT gets an exported pipeline and figures of each teacher. Of MINUTES
# (default 10), trainings take nine tenths: 15 % the judge, 15 % the autoencoder, 35 % A, 10 % B, 15 % C.
# TRAIN holds more options for every training, e.g. TRAIN="--device cpu --batch 4" for a trial.
set -e
cache=$1 output=$2 minutes=${3:-10}
here=$(dirname "$0") run=$cache/run
export PYTHONPATH="$here/../src:$PYTHONPATH"
part() { python3 -c "print($minutes * $1)"; }
train() { # stage, share of the time, batch, peak rate, steps of cooldown
    python3 "$here/train.py" "$1" --cache "$cache" --run "$run" --steps 10000000 --cooldown 0 \
        --minutes "$(part "$2")" --batch "$3" --peak "$4" $TRAIN
    python3 "$here/train.py" "$1" --cache "$cache" --run "$run" --batch "$3" --peak "$4" --finish "$5" $TRAIN
}
train clip .12 1024 1e-3 ${COOLDOWN:-400}
python3 "$here/export.py" judge "$output/judge" --cache "$cache" --run "$run"
train autoencoder .12 128 1e-3 ${COOLDOWN:-800}
for teacher in a b c; do
    case $teacher in a) share=.28 ;; b) share=.08 ;; c) share=.12 ;; esac
    train $teacher $share 512 1e-3 ${COOLDOWN:-1500}
    python3 "$here/export.py" $teacher "$output/$teacher" --cache "$cache" --run "$run"
    python3 "$here/judge.py" "$output/$teacher" --judge "$output/judge" --cache "$cache" --output "$output/$teacher-judged" $JUDGE
done
