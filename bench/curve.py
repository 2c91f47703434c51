"""What limits a reader of features: its photos, or the features? Closed forms fitted on more and more photos.

    python bench/curve.py PAIRS [--hidden PAIRS]

Each probe is scored on some of the patches that it was fitted on, and on the validation patches. HIDDEN are pairs of the same photos that hold
the last hidden state (dinoinv_prepare --layers 6), before the last LayerNorm: what a linear probe reads there is what a reader could have if it knew each token's scale.
Numbers go to bench/curve.json.
"""
import os; os.environ.setdefault('TQDM_DISABLE', '1')
import argparse
from pathlib import Path
from dinoinv.core import evenly, save_json
from dinoinv.dataset import PairsDataset
from dinoinv.decoder import LinearProbe
from dinoinv.features import encoder_line
from dinoinv.pairs import load_batches
from dinoinv.scores import average
from dinoinv.train import fit_probes, validate

def photo_of(name): return name.split('__')[0]

def only(pairs, names):
    "The training patches of these names"
    return PairsDataset(pairs, 'train', skip={*PairsDataset(pairs, 'train').names}-{*names})

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('pairs', help='folder written by dinoinv_prepare')
    p.add_argument('--hidden', help='pairs of the last hidden state of the same photos')
    o = p.parse_args()
    vals = {pairs: PairsDataset(pairs, 'val', None, random=False) for pairs in (o.pairs,o.hidden) if pairs}
    whole = PairsDataset(o.pairs, 'train')
    photos = sorted({photo_of(name) for name in whole.names})
    rows = []
    for share in (8,4,2,1):
        chosen = {*evenly(photos, len(photos)//share)}
        names = [name for name in whole.names if photo_of(name) in chosen]
        def scored(probe, pairs):
            parts = dict(fitted=only(pairs, evenly(names, 150)).uncropped(), validation=vals[pairs])
            return {part: average(validate(probe, ds))['psnr'] for part,ds in parts.items()}
        row = dict(photos=len(chosen), patches=len(names))
        for name,probe in fit_probes(only(o.pairs, names)).items(): row[name] = scored(probe, o.pairs)
        if o.hidden:
            batches = ((b['features'], b['target']) for b in load_batches(only(o.hidden, names).uncropped(), 8))
            row['before_layernorm'] = scored(LinearProbe.fit(batches, whole.unit, reach=1), o.hidden)
        rows.append(row)
        print(row, flush=True)
        save_json(Path(__file__).with_suffix('.json'), dict(encoder=encoder_line(whole.meta['encoder']), validation=len(vals[o.pairs]), rows=rows))

if __name__ == '__main__': main()
