#!/bin/sh
# The bundled adapters, of the default design, each in one go, resumable.
#   sh teachers/adapters.sh unet|dit|sd3 FOLDER
# One core takes about half an hour for each.
set -e
here=$(dirname "$0")
package="$here/../src/guidefold/demo"
common="--keep 20 --record-batch 32 --shard 32 --scale-max 6 --squeeze 64 --ema-decay 0.99 --learning-rate 0.003"
often="--validate-every 250 --checkpoint-every 50"
case $1 in
    unet) model=bundled folder=teacher size="--trajectories 1024 --steps 1200 --batch-size 32" ;;
    dit) model=bundled-dit folder=dit size="--trajectories 1200 --steps 1200 --batch-size 64" ;;
    sd3) model=bundled-sd3 folder=sd3 size="--trajectories 1024 --steps 1200 --batch-size 64" ;;
    *) echo "unet, dit or sd3, not $1" >&2; exit 2 ;;
esac
python3 -m guidefold distill --model $model --conditions "$package/$folder/prompts.txt" --output "$2" $common $size $often
python3 "$here/adapter.py" "$2/best" $model
