#!/bin/sh
# Adapters of the default design for the bundled teachers, each in one go, resumable; that of dit is the bundled one.
#   sh teachers/adapters.sh unet|dit FOLDER
# One core takes about half an hour for each.
set -e
here=$(dirname "$0")
package="$here/../src/guidefold/demo"
common="--keep 20 --record-batch 32 --shard 32 --design film --squeeze 64 --ema-decay 0.99 --learning-rate 0.003"
case $1 in
    unet) model=bundled prompts=$package/teacher/prompts.txt
        size="--trajectories 1024 --steps 600 --batch-size 32 --validate-every 250 --checkpoint-every 50" ;;
    dit) model=bundled-dit prompts=$package/dit/prompts.txt
        size="--trajectories 1200 --scale-max 6 --steps 1200 --batch-size 64 --validate-every 250 --checkpoint-every 50" ;;
    *) echo "unet or dit, not $1" >&2; exit 2 ;;
esac
python3 -m guidefold distill --model $model --conditions "$prompts" --output "$2" $common $size
if [ "$1" = dit ]; then python3 "$here/adapter.py" "$2/best" $model; fi
