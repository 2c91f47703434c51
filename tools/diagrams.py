"""The diagrams at the head of chapters and of the pages they stand on: what flows where, with shapes, and which room this is.

    python tools/diagrams.py     write nbs/images/flow_*.svg
"""
from html import escape
from pathlib import Path

ROOMS = 'photos features pairs decoder training inference study unseen pretraining'.split()
WIDE,HIGH,GAP = 148,52,38 # of a box, px, and the space between two for an arrow

STYLE = """
  .line { stroke: #444; fill: none; stroke-width: 1.5 } .head { fill: #444 }
  .box { fill: #e8eef7; stroke: #4a6fa5; stroke-width: 1.5 } .ours { fill: #fbeee3; stroke: #c0692c; stroke-width: 1.5 }
  text { fill: #222; text-anchor: middle } .small { font-size: 12px; fill: #555 } .room { fill: #777; font-size: 14px }
  .here { fill: #c0692c; font-size: 14px; font-weight: 700 }
  @media (prefers-color-scheme: dark) {
    .line { stroke: #bbb } .head { fill: #bbb } .box { fill: #22324a; stroke: #7ea3dc } .ours { fill: #44301f; stroke: #e09a62 }
    text { fill: #eee } .small { fill: #bbb } .room { fill: #999 } .here { fill: #e09a62 }
  }"""

# Boxes: name → (column, row, first line, second line). What is trained or made by the chapter has a name that ends in `*`.
# Arrows: pairs of names; those that are not in one row turn corners half-way.
DIAGRAMS = {
    '00_features': ('features', 'A photo is cropped to whole patches; DINOv2, frozen, turns it into a grid of 384 numbers for each patch.', dict(
        photo=(0,0,'photo','(3, H, W) in [0,1]'), crop=(1,0,'centre crop','to multiples of 14 px'), enc=(2,0,'DINOv2-S, frozen','12 blocks, LayerNorm'),
        grid=(3,0,'features','(384, H/14, W/14)')), 'photo>crop crop>enc enc>grid'),
    '01_dataset': ('pairs', 'Photos are cut into patches; the encoder gives the features of each; both are kept on disk. Training takes a window of tokens and the pixels under it.', dict(
        photo=(0,0,'photo','in a texture group'), patch=(1,0,'patch','(3, 518, 518)'), feat=(2,0,'features','(384, 37, 37)'), disk=(3,.5,'pair on disk','in one split'),
        win=(4,0,'window of tokens','(384, 14, 14)'), crop=(4,1,'crop of pixels','(3, 192, 192)'), rgb=(2,1,'pixels','(3, 518, 518)')),
        'photo>patch patch>feat patch>rgb feat>disk rgb>disk disk>win disk>crop'),
    '02_decoder': ('decoder', 'Tokens go two ways: through ten residual blocks, and through a shortcut that starts as a probe: each token gets a scale and a shift, and a linear map of 3×3 tokens and of products makes pixels. The sum is the picture.', dict(
        tok=(0,.5,'tokens','(C, h, w)'), inn=(1,0,'1×1 convolution','(112, h, w)'), blocks=(2,0,'10 residual blocks',"3×3 convolutions"), out=(3,0,'3×3 convolution','3·14² channels'),
        scale=(1,1,'scale and shift','of each token'), restored=(2,1,'restored tokens','(C+2, h, w)'), short=(3,1,'linear map','of 3×3 tokens, products'), img=(4,.5,'picture','(3, 14h, 14w)')),
        'tok>inn inn>blocks blocks>out out>img tok>scale scale>restored restored>short short>img'),
    '03_train': ('training', 'A window of tokens goes through the decoder; the L1 distance to the target crop says how Adam changes it.', dict(
        win=(0,0,'window of tokens','(384, 14, 14)'), dec=(1,0,'decoder*','2.0–3.0 M parameters'), pred=(2,0,'prediction','(3, 192, 192)'), l1=(3,0,'L1','mean absolute error'),
        target=(4,0,'target crop','(3, 192, 192)'), adam=(2,1,'Adam','one cycle of rates')), 'win>dec dec>pred pred>l1 target>l1 l1>adam adam>dec'),
    '04_inference': ('inference', 'The decoder makes a picture from features; it is compared with the target, and with what five baselines make.', dict(
        feat=(0,.5,'features','(384, h, w)'), dec=(1,0,'decoder','from RUN/best'), base=(1,1,'five baselines','that give the scale'), pred=(2,0,'prediction','(3, 14h, 14w)'), score=(3,1,'scores','summary.json'),
        fig=(3,0,'pictures','with error maps')), 'feat>dec feat>base dec>pred pred>fig base>score pred>score'),
    '05_study': ('study', 'The encoder and its untrained control are read by probes and decoders; six questions are answered.', dict(
        enc=(0,0,'encoder','trained'), ctrl=(0,1,'control','random weights'), probe=(1,0,'linear probes','at each depth'), dec=(1,1,'decoders','trained for it'),
        same=(2,.5,'same test photos','paired differences'), q=(3,.5,'six answers','one to each question'), rep=(4,.5,'report.html','figures and tables')), 'enc>probe enc>dec ctrl>probe ctrl>dec probe>same dec>same same>q q>rep'),
    '06_unseen': ('unseen', 'From a true picture, gradient steps go as far away in pixels as the features allow, and to the plainest picture with the same features; the first gives metamers, the second divides what a decoder brings back into seen and guessed.', dict(
        true=(0,.5,'true picture','(3, H, W) in [0,1]'), feat=(1,.5,'features','of any layer'), steps=(2,.5,'Adam on pixels','the features stay'), far=(3,0,'metamer','as far as possible'),
        plain=(3,1,'plainest picture','toward mean colour'), split=(4,1,'seen, guessed','by frequency'), dec=(3,2,'decoder','')),
        'true>feat feat>steps steps>far steps>plain plain>split feat>dec dec>split'),
    '07_pretrain': ('pretraining', 'A teacher sees large crops, a student sees crops with hidden parts and small ones; the student learns to say what the teacher says.', dict(
        pic=(0,.5,'a picture','with changed colours'), big=(1,0,'large crops','nothing hidden'), hid=(1,1,'large crops','some parts hidden'), teach=(2,0,'teacher','average of the student'),
        small=(1,2,'small crops',''), stud=(2,1,'student*','is trained'), tgt=(3,0,'targets',''), guess=(3,1,'guesses',''), loss=(4,.5,'cross-entropy','DINO and iBOT')), 'pic>big pic>hid pic>small big>teach hid>stud small>stud teach>tgt stud>guess tgt>loss guess>loss'),
    'textures': ('photos', 'A random generator bends coordinates and draws shapes on them; these become height and colour, and light and a camera make a picture of both.', dict(
        seed=(0,.5,'seed, family, k','random numbers'), grid=(1,.5,'coordinates','tilted, bent'), shapes=(2,.5,'shapes','a recipe a family'), height=(3,0,'height',''), colour=(3,1,'colour','from a palette'),
        light=(4,.5,'light and camera','(518, 518, 3)')), 'seed>grid grid>shapes shapes>height shapes>colour height>light colour>light'),
    'scores': ('training', 'A window of tokens goes through a model and five baselines; each picture is scored against the target, and scores become averages.', dict(
        feat=(0,.5,'features','(C, h, w)'), model=(1,0,'a model','cut to the crop'), base=(1,1,'five baselines','on the same crop'), pic=(2,.5,'pictures','(3, H, W) in [0,1]'),
        score=(3,.5,'scores of each','PSNR, SSIM, MAE'), avg=(4,.5,'averages','baselines.json'), target=(3,1.5,'target','(3, H, W) in [0,1]')),
        'feat>model feat>base model>pic base>pic pic>score target>score score>avg'),
    'gallery': ('inference', 'The results of one decoder, or of two, become a page in one file, or the same page in a notebook.', dict(
        res=(0,.5,'results','of one decoder, or two'), page=(1,0,'gallery','one HTML file'), browse=(1,1,'browse','in a notebook')),
        'res>page res>browse'),
    'report': ('study', 'A study writes numbers alone; from them come panels, sentences and a table, and a template puts these on one page.', dict(
        study=(0,1,'study',''), json=(1,1,'report.json','numbers alone'), plot=(2,0,'plot_…','panels (SVG)'), said=(2,1,'findings.j2','sentences'), head=(2,2,'headline','a table'), form=(3,1,'study.html','a template'),
        page=(4,1,'report.html','one page')), 'study>json json>plot json>said json>head plot>form said>form head>form form>page'),
}

def box(name, col, row, first, second):
    x,y = col*(WIDE+GAP), 46 + row*(HIGH+22)
    kind = 'ours' if name.endswith('*') or first.endswith('*') else 'box'
    lines = [f'<rect class="{kind}" x="{x+1}" y="{y}" width="{WIDE}" height="{HIGH}" rx="6"/>']
    at = y + (22 if second else 31)
    lines.append(f'<text x="{x+1+WIDE/2}" y="{at}">{escape(first.rstrip("*"))}</text>')
    if second: lines.append(f'<text class="small" x="{x+1+WIDE/2}" y="{at+18}">{escape(second)}</text>')
    return lines

def arrow(a, b):
    "From the box at (column, row) `a` to that at `b`"
    x0,x1 = (c*(WIDE+GAP)+1 for c in (a[0],b[0]))
    y0,y1 = (46 + r*(HIGH+22) + HIGH/2 for r in (a[1],b[1]))
    if x0 == x1: # above or below
        down = y1 > y0
        return f'M{x0+WIDE/2},{y0+HIGH/2*(1 if down else -1)} V{y1-(HIGH/2+3)*(1 if down else -1)}'
    start,end = (x0+WIDE, x1-3) if x1 > x0 else (x0, x1+WIDE+3)
    if x1 > x0 or y0 == y1:
        middle = x1-GAP/2 if x1 > x0 else x1+WIDE+GAP/2
        return f'M{start},{y0} H{end}' if y0 == y1 else f'M{start},{y0} H{middle} V{y1} H{end}'
    if y1 > y0: # back, to what lies below: into its right side
        return f'M{x0+WIDE/2},{y0+HIGH/2} V{y1} H{x1+WIDE+3}'
    return f'M{start},{y0} H{x1+WIDE/2} V{y1+HIGH/2+3}' # back and up: into it from below

def svg(here, words, boxes, arrows):
    "A diagram under the strip of rooms"
    columns,rows = (max(b[i] for b in boxes.values())+1 for i in (0,1))
    width,height = max(columns*(WIDE+GAP)-GAP, 840)+2, 46 + rows*(HIGH+22) - 22 + 4
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" font-family="system-ui, sans-serif" font-size="15">',
           f'<title>{escape(words)}</title><style>{STYLE}\n</style>',
           '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path class="head" d="M0,0 L8,4 L0,8 z"/></marker></defs>']
    step = width/len(ROOMS)
    for i,room in enumerate(ROOMS):
        out.append(f'<text class="{"here" if room == here else "room"}" x="{(i+.5)*step:.0f}" y="18">{room}</text>')
        if i: out.append(f'<path class="line" d="M{i*step-9:.0f},13 h18" marker-end="url(#a)" opacity=".5"/>')
    for name,b in boxes.items(): out += box(name, *b)
    for pair in arrows.split():
        a,b = (boxes[k] for k in pair.split('>'))
        out.append(f'<path class="line" d="{arrow(a, b)}" marker-end="url(#a)"/>')
    return '\n'.join(out + ['</svg>', ''])

if __name__ == '__main__':
    images = Path(__file__).parent.parent/'nbs/images'
    for name,diagram in DIAGRAMS.items(): (images/f'flow_{name}.svg').write_text(svg(*diagram))
