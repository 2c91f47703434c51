"""bench/results.md from the JSON files beside it, each written by the script that measured it.

    python bench/results.py
"""
import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEAD = """# Measurements

Made by `python bench/results.py` from the JSON files beside it. **`mini`** is the small DINOv2 that comes with the package, **`untrained:mini`** its control, the same architecture with random
weights, **`untrained`** DINOv2-Small's architecture with random weights. None of them is DINOv2, and nothing here is a result about DINOv2. Times are of two CPU cores
that did other work as well: only ratios within one run compare.

The real photos: 150 texture photos of 512–1140 px, free licences, not part of the repository. Each photo is its own texture, so no photo is in two splits. Patches of 252 px:
1401 for training (120 photos), 149 for validation (15), 132 for testing (15).
"""

def read(name):
    path = HERE/f'{name}.json'
    return json.loads(path.read_text('utf-8')) if path.exists() else {}

def table(head, rows):
    lines = [head, ['---']*len(head), *rows]
    return '\n'.join(f"| {' | '.join(map(str, line))} |" for line in lines)

def decoders():
    "Which decoder: by set of features, each variant with its mean over seeds"
    text = '## Which decoder\n\nChosen on **validation** patches: `python bench/decoders.py PAIRS OUT --epochs N`. *quadratic*: a regression that also reads products of channels. *products*: the same on rescaled tokens, beside the scaled probe; the default starts there. `runs/other` is a small encoder trained otherwise: `dinoinv_pretrain --seed 3 --weight-decay .3 --side 168 --steps 2400`.\n\n'
    text += ("**The method's own decoder** needs its 50 epochs. On `mini`, validation patches, one seed, measured with an earlier version of the package (the network is the same): 21.57 dB and an SSIM of .343 "
             "after all 50. The low-pass oracle, which is near the ceiling of its PSNR, has 22.45 dB and .336 there.\n")
    for features,found in read('decoders').items():
        rows = []
        for name,runs in found['scores'].items():
            mean = lambda key: sum(run[key] for run in runs)/len(runs)
            cost = ('', '', '') # of a probe
            if 'parameters' in runs[0]:
                seconds = f"{mean('cpu_s_epoch'):.0f}" if runs[0]['cpu_s_epoch'] else '' # a run that was taken up has none
                cost = (f"{runs[0]['parameters']/1e6:.2f} M", seconds, len(runs))
            rows.append((name, *cost, f"{mean('psnr'):.2f}", f"{mean('ssim'):.3f}", f"{mean('mae'):.4f}"))
        text += f"\n**{features}**, {found['patches']} patches of {found['photos']} photos, {found['epochs']} epochs:\n\n"
        text += table(['', 'parameters', 'CPU s an epoch', 'seeds', 'PSNR dB', 'SSIM', 'MAE'], rows) + '\n'
    return text

def mini():
    "What `mini` and its control keep of real photos"
    found = read('mini')
    if not found: return ''
    encoders = found.pop('encoders')
    cell = lambda v: f"{v['mean']:.2f}" + (' ({:.2f}, {:.2f})'.format(*v['ci95']) if v['ci95'] else '')
    rows = [(name, *(cell(by[who]) for who in (*encoders, 'difference'))) for name,by in found.items()]
    head = ['test patches; intervals draw photos', *(f'{name} ({weights})' for name,weights in encoders.items()), 'difference']
    return f"## What `mini` keeps\n\n`python bench/mini.py PHOTOS PAIRS` and, for the rows with *one token* and *3×3 tokens*, `--scale`. Probes are fitted on 480 training patches.\n\n{table(head, rows)}\n"

def encoders():
    "Encoders of several seeds, and several controls"
    found = read('encoders')
    if not found: return ''
    text = ('## Several encoders, several controls\n\n`python bench/encoders.py PAIRS OUT --encoders …`. *mini, seed 1* and *2* are what `dinoinv_pretrain --seed` makes of other seeds; their weights are not kept. PSNR in dB. '
            'The difference is encoders minus controls: mean, 95 % interval over pictures, and the lowest and highest of all pairs of an encoder and a control. The *decoder* here is that of before there were products: it started as the scaled probe.\n')
    for kind,what in dict(generated='generated textures, as in the demo', real='real photos').items():
        of_kind = found[kind]
        rows = []
        for reader,psnr in of_kind['psnr'].items():
            d = of_kind['difference'][reader]
            rows.append((reader, *(f'{v:.2f}' for v in psnr.values()), f"{d['mean']:+.2f} ({d['ci95'][0]:+.2f}, {d['ci95'][1]:+.2f}); {d['lowest']:+.2f} to {d['highest']:+.2f}"))
        text += f"\n**{what[0].upper()+what[1:]}**, {of_kind['patches']} test patches of {of_kind['pictures']} pictures:\n\n"
        text += table(['read by', *found['encoders'], 'difference'], rows) + '\n'
    rows = [(who, o['weights'], f"{o['varies']:.1%}") for who,o in found['encoders'].items()]
    text += '\n*Varies*: how much hidden tokens vary, as a share of their mean, along the direction where they vary least (chapter 2).\n\n'
    return text + table(['', 'weights', 'varies'], rows) + '\n'

def seen():
    "What features determine"
    found = read('seen')
    if not found: return ''
    steps = [key for key in next(iter(found.values())) if key.endswith('steps')]
    rows = [(who, o['weights'], *(f"{o[n]['seen']:.1%} ({o[n]['ci95'][0]:.0%}, {o[n]['ci95'][1]:.0%}); {o[n]['power']:.1%}" for n in steps)) for who,o in found.items()]
    return ('## What is seen\n\n`python bench/seen.py OUT --encoders runs/other`. Shares of the power of six generated textures that features determine (chapter 6), with 95 % intervals over pictures; '
            'then the power that is left in the plainest pictures.\n\n' + table(['', 'weights', *steps], rows) + '\n')

def speed():
    "All sections of bench.json"
    text = '## Speed, memory, disk\n\n`python bench/bench.py`. A `ratio` is the median of those of several turns.\n'
    for name,found in read('bench').items():
        text += f"\n**{name}**: {found['what']} ({found['threads']} threads)\n\n```json\n{json.dumps(found['numbers'], indent=1, ensure_ascii=False)}\n```\n"
    return text

def faults():
    "What tools/faults.py tried"
    found = read('faults')
    keys = 'trials','lost','wrong','stuck','tracebacks'
    rows = [(row['what'] or row['fault'], *(row[k] for k in keys)) for row in found['rows']]
    return f"## Faults on purpose\n\n`python tools/faults.py`, {found['seconds']:.0f} s:\n\n{table(['', *keys], rows)}\n"

def pretraining():
    "The curve of `mini`"
    log = json.loads((HERE.parent/'dinoinv/mini/log.json').read_text('utf-8'))
    asked = [row for row in log if 'knn' in row]
    rows = [(row['step'], f"{row['knn']:.1%}", f"{row['psnr']:.2f}") for row in asked[::max(1, len(asked)//10)]]
    return ("## How `mini` was made\n\n`dinoinv_pretrain`'s defaults: 4,000 steps of 32 generated textures, seed 0; its log lies beside the weights, in `dinoinv/mini/`.\n\n"
            + table(['step', '5-NN accuracy, generated textures', 'linear probe, final output, same textures, dB'], rows) + '\n')

if __name__ == '__main__':
    parts = [HEAD, decoders(), mini(), encoders(), seen(), pretraining(), speed(), faults()]
    (HERE/'results.md').write_text('\n'.join(part for part in parts if part), encoding='utf-8')
