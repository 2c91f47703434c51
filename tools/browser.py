"""Drive the site and the browsers of reconstructions as a person would, in Chromium: on the built site, in JupyterLab, and on a page of its own.

    python tools/browser.py gallery SITE [--shots DIR]   the site in SITE (menu, search, page weights) and its gallery: desktop and phone, light and dark
    python tools/browser.py try SITE [--shots DIR]       the page `try` of the site: photos, networks, tokens, scores, what it refuses and what it loads
    python tools/browser.py lab [--shots DIR]            the widget, saved galleries, and a thousand samples in a JupyterLab of its own

All fail with the first thing that doesn't do what it should, and leave screenshots in DIR.
"""
import argparse, base64, functools, gzip, io, json, os, re, secrets, shutil, socket, subprocess, sys, tempfile, threading, time, urllib.request
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
from playwright.sync_api import Error, sync_playwright

FLAGS = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split()

@contextmanager
def chromium():
    exe = next(filter(None, map(shutil.which, ('chromium', 'google-chrome', 'chromium-browser'))), None)
    if not exe: sys.exit('no Chromium: apt-get install chromium')
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=exe, args=FLAGS)
        try: yield browser
        finally: browser.close()

@contextmanager
def serving(folder):
    "`folder` at a local address"
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    srv = ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=srv.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{srv.server_port}'
    finally: srv.shutdown()

def check(ok, what):
    if not ok: raise AssertionError(what)

def until(f, what, wait=15):
    "Wait for `f()` to be true"
    end = time.monotonic()+wait
    while not (r := f()):
        check(time.monotonic() < end, what); time.sleep(.1)
    return r

def changes(look, act, what, wait=15):
    "`act` must change what `look` sees"
    before = look(); act()
    return until(lambda: look()!=before, f'{what}: nothing changed', wait)

# ---- the gallery: the same script on a page and in a notebook ----

def drive_gallery(page, host, data):
    host.scroll_into_view_if_needed()
    score = lambda s, i: s['scores']['run'][i]
    at = lambda css: host.locator(css)
    button = lambda name: host.get_by_role('button', name=name, exact=True)
    title = lambda: at('.facts h3').get_attribute('title')
    shown = lambda: at('.thumb').evaluate_all('o => o.map(e => e.title)')
    order = lambda f, reverse=False: [s['name'] for s in sorted(data['samples'], key=f, reverse=reverse)]
    tags = lambda: [o.inner_text() for o in at('.tag').all() if o.is_visible()]
    def settled(): until(lambda: at('.stage').get_attribute('aria-busy')=='false', 'the picture did not come')
    def stage(): # once it has settled
        settled()
        a,b = None,at('.stage').screenshot()
        while a!=b: a,b = b,at('.stage').screenshot()
        return b

    settled()
    check(title()==shown()[0]==order(lambda s: score(s, 0))[0], 'it should open with the worst PSNR')
    check(data['made'] in at('.made').inner_text(), 'the encoder should be named')
    check(tags()[0]=='target' and 'reconstruction' in tags()[1], f'the pictures should be named: {tags()}')
    check(f"{len(data['samples'])} of {len(data['samples'])} samples" in at('.count').inner_text(), 'how many are shown')
    at('.sort').select_option('ssim'); check(shown()==order(lambda s: score(s, 1)), 'sort by SSIM')
    button('worst first').click(); check(shown()==order(lambda s: score(s, 1), True), 'sort by SSIM, best first')
    at('.sort').select_option('name'); check(shown()==order(lambda s: s['name'], True), 'sort by name, backwards')

    group = data['samples'][-1]['group']
    at('select.group').select_option(group); check(set(shown())=={s['name'] for s in data['samples'] if s['group']==group}, 'filter by texture')
    at('select.group').select_option('')
    name = data['samples'][2]['name']
    at('.find').fill(name); check(shown()==[name]==[title()], 'filter by text'); at('.find').fill('no such')
    check('no such' in at('.none').inner_text() and not at('.main').is_visible(), 'a filter that nothing fits should say so')
    button('Show all samples').click(); check(len(shown())==len(data['samples']) and at('.main').is_visible(), 'one button shows all again')
    at('.sort').select_option('psnr'); button('best first').click()

    names = shown()
    changes(stage, at('.thumb').nth(3).click, 'a click on a thumbnail'); check(title()==names[3], 'a click should open its sample')
    changes(stage, lambda: page.keyboard.press('ArrowRight'), 'arrow key'); check(title()==names[4], 'arrow right: the next sample')
    page.keyboard.press('ArrowLeft'); page.keyboard.press('Home'); check(title()==names[0], 'Home: the first sample')
    at('input.sample').focus(); page.keyboard.press('ArrowRight'); check(title()==names[1], 'the sample slider, by keyboard')
    button('Next sample').click(); check(title()==names[2], 'next'); button('Previous sample').click(); check(title()==names[1], 'previous')
    at('.plot').click(position=dict(x=at('.plot').bounding_box()['width']-1, y=20)); check(title()==names[-1], 'a click at the end of the curve')

    def drag(a, b):
        box = at('.stage').bounding_box()
        p = lambda f: (box['x']+f*box['width'], box['y']+.4*box['height'])
        page.mouse.move(*p(a)); page.mouse.down(); page.mouse.move(*p(b), steps=4); page.mouse.up()
    def away(): at('.what').hover() # the pointer off the picture
    at('.stage').scroll_into_view_if_needed()
    changes(stage, lambda: drag(.5, .9), 'dragging the wipe'); check(abs(float(at('.at input').input_value())-90) < 2, 'the wipe should be where it was dragged')
    at('.at input').focus(); changes(stage, lambda: page.keyboard.press('Home'), 'the wipe by keyboard')
    changes(stage, button('side by side').click, 'side by side')
    a,b = (at(f'.pane.{k}').bounding_box() for k in ('left','right')); check(a['x']+a['width'] <= b['x']+1 and a['width'] > 100, 'two pictures beside each other')
    changes(stage, button('error map').click, 'error map'); check_error_map(host, data)
    changes(stage, button('hover').click, 'hover'); away(); check('reconstruction' in tags()[0], f'away from the picture: {tags()}')
    changes(stage, at('.stage').hover, 'pointing at the picture'); check(tags()==['target'], f'over the picture: {tags()}'); away()
    changes(stage, lambda: page.keyboard.press('Space'), 'hover, by the space bar')
    button('flicker').click(); changes(tags, lambda: None, 'flicker alternates')
    page.keyboard.press('4'); check(button('side by side').get_attribute('aria-pressed')=='true', 'keys choose the view')
    changes(stage, lambda: page.keyboard.press('+'), 'zoom'); button('Zoom in').click()
    changes(stage, lambda: drag(.4, .2), 'panning'); changes(stage, lambda: page.keyboard.press('Shift+ArrowDown'), 'panning by keyboard')
    moves = at('.pane img').evaluate_all('o => o.map(e => getComputedStyle(e).transform)'); check(len(moves)==2 and moves[0].split(',')[0]==moves[1].split(',')[0]!='none', 'both zoom alike')
    page.keyboard.press('0'); button('wipe').click(); at('.at input').focus(); page.keyboard.press('End')
    check(at('.main').evaluate('e => [...e.children].every(o => o.scrollWidth <= o.clientWidth)'), 'something sticks out')
    changes(stage, lambda: at('select.l').select_option('low_pass'), 'a baseline on the left'); check(tags()[0]=='low pass', f'the baseline should be named: {tags()}')
    if 'other' in data['pictures']: changes(stage, lambda: at('select.l').select_option('other'), 'the other run on the left')
    at('select.l').select_option('target')
    low = at(':is(button, select, input[type=range]):visible').evaluate_all('o => o.filter(e => e.getBoundingClientRect().height < 39.5).map(e => e.outerHTML)')
    check(not low, f'too low for a finger: {low}')
    page.evaluate("void (Element.prototype.requestFullscreen = () => Promise.reject(new Error('refused')))")
    button('Full screen').click(); until(lambda: 'refuses' in at('.news').inner_text(), 'a refused full screen should be said')

PIXELS = """async (e, map) => { // mean absolute error of what is shown, from the pictures, and from the colours of its map
    const read = async src => { const i = new Image(); i.src = src; await i.decode()
        const c = Object.assign(document.createElement('canvas'), { width: i.naturalWidth, height: i.naturalHeight })
        c.getContext('2d').drawImage(i, 0, 0); return c.getContext('2d').getImageData(0, 0, c.width, c.height).data }
    const data = await read(e.src), levels = new Map(map.map((c, i) => [parseInt(c, 16), i]))
    let sum = 0
    for (let i = 0; i < data.length; i += 4) sum += (levels.get(data[i] << 16 | data[i+1] << 8 | data[i+2]) + .5)/map.length
    return sum/(data.length/4) }"""

def check_error_map(host, data):
    "The colours of the error map, read back as numbers, must average to the MAE that was measured in Python"
    name = host.locator('.facts h3').get_attribute('title')
    mae = next(s for s in data['samples'] if s['name']==name)['scores']['run'][2]
    read = host.locator('.pane.right img').evaluate(PIXELS, data['colours'])*data['top']
    check(abs(read-mae) < .003+.05*mae, f'the error map of {name} averages to {read:.4f}, its MAE is {mae:.4f}')

def drive_alone(page, url, shots):
    "A gallery with a page of its own: keys without a click, and links to a sample in a view"
    host = page.locator('.dinoinv-gallery')
    title = lambda: host.locator('.facts h3').get_attribute('title')
    ready = lambda: host.locator('.stage[aria-busy=false]').wait_for(timeout=30_000)
    page.goto(url); ready()
    changes(title, lambda: page.keyboard.press('ArrowRight'), 'arrow key before any click')
    address = lambda: page.evaluate('location.href')
    page.keyboard.press('4'); until(lambda: 'view=side' in address(), 'the address should follow')
    name,link = title(),address()
    page.goto('about:blank'); page.goto(link); ready()
    check(title()==name and host.get_by_role('button', name='side by side').get_attribute('aria-pressed')=='true', 'a link should lead back')
    check(page.locator('main').count()==1, 'a page has a main part')
    page.screenshot(path=shots/'page.png')
    page.goto('about:blank'); page.goto(f'{url}#sample=gone'); ready()
    check('gone' in host.locator('.news').inner_text(), 'a link to a sample that is not there should say so')

SOUGHT = {'install': 'index', 'gpu memory': 'reference/costs', 'out of memory': 'reference/costs', 'how long': 'reference/costs',
          'colab': 'index', 'dinov3': 'howto/encoder', 'train_decoder': 'train', 'psnr': 'reference/numbers'} # words → the page that comes first

def drive_search(page):
    "The search finds the page that answers, not the one that says the word most often"
    search = page.locator('.smalldocs-search input')
    for words,want in SOUGHT.items():
        search.fill(words)
        first = page.locator('.search-result').first
        until(lambda: first.count() and f'/{want}.html' in first.get_attribute('href'), f'{words!r} should find {want}')
    search.press('Enter'); until(lambda: f'/{want}.html' in page.url, 'Enter should go there')

def drive_menu(page, url):
    "A phone: the menu begins below the header, shows where one is, and reaches its last page"
    page.goto(f'{url}/reference/costs.html')
    menu,bar = page.get_by_role('button', name='Menu'),page.locator('#quarto-sidebar')
    check(not bar.is_visible(), 'the menu should be closed'); menu.click()
    until(lambda: bar.bounding_box()['x']==0, 'the menu should open')
    box,top = bar.bounding_box(),page.locator('#quarto-header').bounding_box()
    check(box['y'] >= top['height']-1 and box['y']+box['height'] <= 845, f'the menu sticks out: {box}')
    until(lambda: 0 < bar.locator('.active').bounding_box()['y'] < 844, 'the page one is on should be in sight')
    page.keyboard.press('Escape'); until(lambda: not bar.is_visible(), 'Escape should close the menu'); menu.click()
    bar.get_by_text('Internals', exact=True).click()
    last = bar.locator('a').last; last.scroll_into_view_if_needed(); name = last.inner_text(); last.click()
    until(lambda: page.locator('h1.title').inner_text()==name, f'the menu should lead to its last page, {name}')

def drive_site(browser, url, shots):
    "Menu, search, code, pictures, lost links; and nothing is wider than the screen or comes from elsewhere"
    for size,width,height in (('desktop',1280,900), ('phone',390,844)):
        page = browser.new_page(viewport=dict(width=width, height=height))
        loaded = {} # address → bytes
        page.on('request', lambda r: loaded.setdefault(r.url, 0))
        page.on('response', lambda r: loaded.update({r.url: int(r.headers.get('content-length', 0))}))
        page.goto(f'{url}/features.html'); drive_search(page)
        if size=='phone': drive_menu(page, url)
        else: page.get_by_role('link', name='Results', exact=True).wait_for() # the page that Enter led to may still load
        page.goto(f'{url}/internals/textures.html')
        page.keyboard.press('Tab'); page.keyboard.press('Enter'); check(page.url.endswith('#quarto-document-content'), 'the first key should skip to the text')
        code = page.locator('details.code').first
        code.locator('summary').click(); check(code.locator('pre').first.is_visible(), 'the code should unfold')
        page.locator('main img').first.click(); page.locator('dialog.picture img').wait_for()
        page.screenshot(path=shots/f'site-picture-{size}.png')
        page.keyboard.press('Escape'); check(not page.locator('dialog.picture').count(), 'Escape should close the picture')
        for where in 'index','study','reference/costs','404':
            loaded.clear(); page.goto(f'{url}/{where}.html', wait_until='load')
            check(page.evaluate('document.documentElement.scrollWidth <= innerWidth'), f'{where} is wider than a {size}')
            foreign = [k for k in loaded if not k.startswith(url)]
            check(not foreign or where=='404', f'{where} asks others for {foreign}') # 404.html says where the site is published
            page.screenshot(path=shots/f"site-{where.replace('/', '-')}-{size}.png")
            weight = sum(v for k,v in loaded.items() if not k.endswith(('.webp','.png','.jpeg','.svg')))/1e3
            check(weight < 600, f'{where} loads {weight:.0f} kB before pictures')
            print(f'{size}, {where}: {weight:.0f} kB before pictures')
        page.close()
    print('site: search, menu, skip link, code, pictures, lost links')

def gallery(site, shots):
    site = Path(site)
    pages = [p.relative_to(site).as_posix() for p in site.rglob('*.html') if '<div class="dinoinv-gallery"' in p.read_text()]
    check('internals/gallery.html' in pages, f'no gallery on internals/gallery.html of {site}')
    with serving(site) as url, chromium() as browser:
        drive_site(browser, url, shots)
        for size,width,height,schemes in (('desktop',1280,900,('light','dark')), ('phone',390,844,('dark',))):
            for scheme in schemes:
                page = browser.new_page(viewport=dict(width=width, height=height), color_scheme=scheme)
                errors = []; page.on('pageerror', lambda e: errors.append(str(e)))
                page.goto(f'{url}/internals/gallery.html')
                host = page.locator('.dinoinv-gallery').first
                scheme_of = lambda: host.evaluate('e => e.style.colorScheme')
                try:
                    drive_gallery(page, host, json.loads(host.get_attribute('data-gallery')))
                    check(scheme_of()==scheme, f'{scheme_of()} gallery on a {scheme} page')
                    check(page.evaluate('document.documentElement.scrollWidth <= innerWidth'), 'the page is wider than the screen')
                    check(not errors, errors)
                    header = lambda: page.evaluate("getComputedStyle(document.querySelector('.navbar')).backgroundColor")
                    before = header()
                    if size=='desktop': changes(scheme_of, page.get_by_role('button', name='Light or dark').click, 'the colours of the site were switched')
                    check((header() != before) == (size=='desktop'), 'the header should have the colours of the page')
                except (AssertionError, Error) as e: raise AssertionError(f'gallery, {size}, {scheme}: {e}') from e
                finally: host.screenshot(path=shots/f'gallery-{size}-{scheme}.png')
                page.close()
                print(f'gallery, {size}, {scheme}: sort, filter, open, keys, wipe, views, zoom')

# ---- the page `try`: what it makes of photos, against what Python makes of them ----

def shown(page, css):
    "The pixels of a canvas, (H,W,3) bytes"
    import numpy as np
    from PIL import Image
    address = page.locator(css).evaluate("e => e.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(',')[2]))).convert('RGB'))

READERS = dict(decoder='decoder', scaled='scaled probe', linear='linear probe') # as the page has them, the first chosen

def by_python(folder, image, encoder):
    "The target, its tokens, what each reader makes of them, and the scores: by the package, with the networks of the page"
    from PIL import Image
    from dinoinv.photos import to_bytes, to_tensor
    from dinoinv.scores import image_metrics
    from try_page import SIZE, network
    left,top = (image.width-SIZE)//2,(image.height-SIZE)//2
    target = to_tensor(image.crop((left, top, left+SIZE, top+SIZE)))[None]
    tokens = network(folder/f'{encoder}.onnx')(target)
    pictures = {reader: network(folder/f'{encoder}-{reader}.onnx')(tokens).clamp(0,1) for reader in READERS}
    as_bytes = lambda x: to_bytes(x[0]).permute(1,2,0).numpy()
    scores = {reader: image_metrics(x, target)[0] for reader,x in pictures.items()}
    return as_bytes(target), tokens, {reader: as_bytes(x) for reader,x in pictures.items()}, scores

def apart(a, b): return abs(a.astype(int)-b).max()

def press(page, name):
    page.get_by_role('button', name=name, exact=True).click()
    settle(page)

def settle(page, wait=60): until(lambda: page.locator('#try .stage').get_attribute('aria-busy')=='false', 'the picture did not come', wait)

def table(page):
    "encoder and reader → PSNR and SSIM, as they are shown"
    cells = page.locator('#try tbody tr').evaluate_all("o => o.map(r => [...r.querySelectorAll('td')].map(c => c.textContent))")
    return {(e,r): row[2*i:2*i+2] for r,row in zip(READERS, cells) for i,e in enumerate(('mini','control'))}

def agree(page, folder, image):
    "Target, the readers of both encoders, scores and map must be what Python makes of `image`"
    import numpy as np
    from dinoinv.features import pca_rgb
    worst = 0
    for encoder,name in dict(control='random weights', mini='mini').items():
        press(page, name)
        target,tokens,pictures,scores = by_python(folder, image, encoder)
        check(apart(shown(page, '#try .left canvas'), target)==0, 'the target differs from the centre of the photo')
        for reader,label in reversed(READERS.items()):
            press(page, label)
            worst = max(worst, apart(shown(page, '#try .right canvas'), pictures[reader]))
            psnr,ssim = map(float, table(page)[encoder, reader])
            row = scores[reader]
            check(abs(psnr-row['psnr']) < .05 and abs(ssim-row['ssim']) < .002, f'{encoder}, {reader}: {psnr} dB, {ssim} on the page, {row} in Python')
        cells = shown(page, '#try .map')[2::12,2::12].astype(int)
        wanted = pca_rgb(tokens)*255
        for c in range(3): # the sign of a component is free
            far = min(np.abs(cells[...,c]-sign).max() for sign in (wanted[...,c], 255-wanted[...,c]))
            check(far <= 3, f'component {c} of the tokens differs from pca_rgb by {far:.0f}/255')
    check(worst <= 2, f'pictures differ by {worst}/255 from those of Python')
    return worst

def drive_tokens(page):
    "A token off and on, two swapped, fewer components: picture and scores follow, and come back"
    map_,right = page.locator('#try .map'),lambda: shown(page, '#try .right canvas')
    press(page, 'scaled probe') # it reads a token and its neighbours alone
    before,psnr = right(),lambda: float(table(page)['mini','scaled'][0])
    high = psnr()
    def click(row, column):
        map_.click(position={k: (i+.5)*map_.bounding_box()['width']/18 for k,i in dict(x=column, y=row).items()})
        settle(page)
    click(8, 9)
    moved = (right() != before).any(-1)
    check(moved[8*14:9*14, 9*14:10*14].mean() > .9 and not moved[:6*14].any(), 'a token should change its own place and its neighbours')
    check(psnr() < high and '1 of 324' in page.locator('#try .told').inner_text(), 'the score should fall')
    click(8, 9); check(apart(right(), before)==0, 'a second click should turn the token on again')
    map_.focus(); page.keyboard.press('ArrowRight'); page.keyboard.press('Enter'); settle(page)
    check('1 of 324' in page.locator('#try .told').inner_text(), 'arrows and Enter should turn a token off'); press(page, 'Undo all')
    press(page, 'swaps two'); click(2, 2); click(12, 12); check('2 of 324' in page.locator('#try .told').inner_text(), 'two tokens swapped')
    press(page, 'Undo all'); press(page, 'turns it off'); check(apart(right(), before)==0, 'undo')
    scores,keep = [],page.locator('#try .keep')
    for step in (0, 4, 9): keep.fill(str(step)); settle(page); scores.append(psnr())
    check(scores==sorted(scores) and scores[-1] < high, f'more components, better scores: {scores}')
    keep.focus(); page.keyboard.press('End'); settle(page); check(apart(right(), before) <= 1, 'all components are the tokens again')
    press(page, 'decoder')

def refused(page, name, kind, content, words):
    page.locator('#try .file').set_input_files(dict(name=name, mimeType=kind, buffer=content))
    alert = page.locator('#try [role=alert]'); alert.wait_for()
    check(name in alert.inner_text() and words in alert.inner_text(), f'{name}: {alert.inner_text()!r}')

GIVE = """([kind, name, base64]) => { // a file as it is pasted or dropped
    const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0)), data = new DataTransfer()
    data.items.add(new File([bytes], name, { type: 'image/png' }))
    const how = { bubbles: true, cancelable: true, [kind === 'paste' ? 'clipboardData' : 'dataTransfer']: data }
    document.body.dispatchEvent(kind === 'paste' ? new ClipboardEvent(kind, how) : new DragEvent(kind, how)) }"""

def try_(site, shots):
    from PIL import Image
    from dinoinv.textures import make_texture
    folder = Path(site)/'try'
    def png(image): image.save(buffer := io.BytesIO(), 'PNG', compress_level=1); return buffer.getvalue()
    with serving(site) as url, chromium() as browser:
        page = browser.new_page(viewport=dict(width=1280, height=1000))
        asked,errors = [],[]
        page.on('request', lambda r: asked.append(r.url)); page.on('pageerror', lambda e: errors.append(str(e)))
        page.goto(f'{url}/try.html'); page.locator('#try[data-ready]').wait_for()
        check(not any(re.search('onnx|wasm', a) for a in asked), 'networks should come when they are asked for')
        first,about = shown(page, '#try .right canvas'),json.loads((folder/'about.json').read_text())
        check(table(page)['mini','decoder'][0]==f"{about['still']['decoder']['psnr']:.2f}", 'the first scores')
        start = time.monotonic(); page.locator('#try .begin').click(); settle(page)
        print(f'try: networks and the first picture in {time.monotonic()-start:.1f} s')
        check(apart(shown(page, '#try .right canvas'), first) <= 2, 'the page and PyTorch in full precision should agree')
        page.get_by_role('button', name='kilim').click(); until(lambda: 'kilim' in page.locator('#try .name').inner_text(), 'a sample'); settle(page)
        worst = agree(page, folder, Image.open(folder/'kilim.webp'))
        odd = make_texture('gravel', 3, 5, (353,300))
        page.locator('#try .file').set_input_files(dict(name='mine.png', mimeType='image/png', buffer=png(odd)))
        until(lambda: 'mine.png: the centre of 300 × 353' in page.locator('#try .name').inner_text(), 'a photo'); settle(page)
        worst = max(worst, agree(page, folder, odd))
        print(f'try: a sample and a photo differ from Python by {worst}/255 at most; scores agree to .05 dB')
        drive_tokens(page)
        took = []
        for step in range(6): page.locator('#try .keep').fill(str(step)); settle(page); took.append(int(page.locator('#try').get_attribute('data-took')))
        press(page, 'Undo all')
        print(f'try: {sorted(took)[3]} ms from a change of tokens to its picture')
        stage = page.locator('#try .stage')
        box = stage.bounding_box(); page.mouse.move(box['x']+box['width']/2, box['y']+50); page.mouse.down(); page.mouse.move(box['x']+.8*box['width'], box['y']+60, steps=3); page.mouse.up()
        check(abs(float(page.locator('#try .at input').input_value())-80) < 2, 'the wipe should be where it was dragged')
        press(page, 'error map'); check(page.locator('#try .legend i').is_visible(), 'an error map has a legend'); page.screenshot(path=shots/'try-error.png')
        page.locator('#try .app').focus(); page.keyboard.press('1'); check(page.locator('#try .handle').is_visible(), 'key 1: wipe')
        page.locator('#try .crop input').fill('100'); settle(page); check('300 × 300 px, reduced 1.2 times' in page.locator('#try .cropped').inner_text(), 'the crop')
        for kind in ('paste','drop'):
            page.evaluate(GIVE, [kind, f'{kind}.png', base64.b64encode(png(odd)).decode()])
            until(lambda: f'{kind}.png' in page.locator('#try .name').inner_text(), kind); settle(page)
        refused(page, 'notes.txt', 'text/plain', b'no picture', 'no picture that this browser can read')
        refused(page, 'huge.png', 'image/png', png(Image.new('RGB', (10000,6000))), '60 megapixels')
        refused(page, 'small.png', 'image/png', png(Image.new('RGB', (200,300))), '200 × 300 px')
        check('drop.png' in page.locator('#try .name').inner_text(), 'the last good photo should stay')
        check(not errors, errors)
        check(all(a.startswith((url, 'blob:', 'data:')) for a in asked), f'third parties: {[a for a in asked if not a.startswith(url)]}')
        loaded = {p.name: p.stat().st_size for a in asked if (p := Path(site)/urlsplit(a).path[1:]).is_file()}
        squeezed = sum(len(gzip.compress((folder/name).read_bytes(), 6)) for name in loaded if (folder/name).is_file())
        print(f'try: {len(asked)} requests, all to this site; {sum(loaded.values())/1e6:.1f} MB for both encoders, {squeezed/1e6:.1f} MB of it if the server compresses')
        page.close()
        drive_try_elsewhere(browser, url, shots)

def drive_try_elsewhere(browser, url, shots):
    "On a phone, in the dark, without WebAssembly, without scripts"
    page = browser.new_page(viewport=dict(width=390, height=844), color_scheme='dark', has_touch=True, is_mobile=True)
    start = time.monotonic(); page.goto(f'{url}/try.html'); page.locator('#try[data-ready]').wait_for()
    page.get_by_role('button', name='leaves').tap(); until(lambda: 'leaves' in page.locator('#try .name').inner_text(), 'a tap on a sample'); settle(page)
    print(f'try, phone: a picture {time.monotonic()-start:.1f} s after the page was asked for')
    page.locator('#try .map').tap(); settle(page); check('1 of 324' in page.locator('#try .told').inner_text(), 'a tap on a token')
    check(page.evaluate('document.documentElement.scrollWidth <= innerWidth'), 'the page is wider than the screen')
    check(page.locator('#try').evaluate('e => e.style.colorScheme')=='dark', 'dark as the page around it')
    page.screenshot(path=shots/'try-phone.png', full_page=True); page.close()
    page = browser.new_page(); page.add_init_script('delete globalThis.WebAssembly')
    page.goto(f'{url}/try.html'); page.locator('#try[data-ready]').wait_for()
    check('no WebAssembly' in page.locator('#try [role=alert]').inner_text() and shown(page, '#try .right canvas').std() > 9, 'without WebAssembly: a sentence and a picture'); page.close()
    page = browser.new_page(java_script_enabled=False); page.goto(f'{url}/try.html')
    check('needs JavaScript' in page.locator('#try').inner_text() and page.locator('#try img').count()==2, 'without scripts: a sentence and pictures'); page.close()
    print('try: phone, dark, no WebAssembly, no scripts')

# ---- the widget in JupyterLab ----

def fake_results(folder, blur):
    "Samples as `evaluate` leaves them; the 'decoder' is a blur"
    import numpy as np
    from PIL import Image, ImageFilter
    from dinoinv.core import digest, save_json
    from dinoinv.photos import to_tensor
    from dinoinv.scores import image_metrics
    from dinoinv.textures import sample_textures
    folder.mkdir(parents=True)
    for i,t in enumerate(sample_textures(6, size=196)):
        a,b,c = (np.asarray(o) for o in (t.image, t.image.filter(ImageFilter.GaussianBlur(blur+i/4)), t.image.filter(ImageFilter.GaussianBlur(4))))
        score = lambda o: image_metrics(to_tensor(o)[None], to_tensor(a)[None])[0]
        name = f'{t.family}__{t.name}__0_0'
        info = dict(name=name, group=t.family, height=196, width=196, scores=score(b), baselines=dict(low_pass=score(c)),
            target=digest(a.tobytes()), encoder=dict(name='none, a blur', weights='0'*12, layers=None, fuse='concat', unit=14), files={})
        (folder/name).mkdir()
        for k,pixels in dict(pred=b, target=a).items(): Image.fromarray(pixels).save(folder/name/f'{k}.png')
        save_json(folder/name/'info.json', info)
    save_json(folder/'summary.json', dict(n=6))

def notebook(*cells):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nb.metadata.kernelspec = dict(name='python3', display_name='python3', language='python')
    return nb

@contextmanager
def jupyter(root):
    "JupyterLab in `root`, with settings of its own"
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    token,home = secrets.token_hex(16),root/'.jupyter'
    env = os.environ | {f'JUPYTER_{k}': str(home/k) for k in ('CONFIG_DIR','RUNTIME_DIR','DATA_DIR')} | dict(IPYTHONDIR=str(home/'ipython'))
    cmd = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', f'--port={port}', '--ServerApp.port_retries=0', f'--IdentityProvider.token={token}', f'--ServerApp.root_dir={root}']
    news = home/'CONFIG_DIR/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings' # or it asks
    news.parent.mkdir(parents=True); news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with open(root/'.lab.log', 'w') as log: srv = subprocess.Popen(cmd, env=env, cwd=root, stdout=log, stderr=log)
    def up():
        check(srv.poll() is None, 'JupyterLab stopped: ' + (root/'.lab.log').read_text()[-2000:])
        try: return urllib.request.urlopen(f'http://127.0.0.1:{port}/api?token={token}', timeout=2)
        except OSError: return False
    try:
        until(up, 'JupyterLab did not start', 60)
        yield lambda nb: f'http://127.0.0.1:{port}/lab/workspaces/{Path(nb).stem}/tree/{nb}?token={token}'
    finally: srv.terminate(); srv.wait(20)

def many_results(folder, n):
    "`n` samples that share their pictures"
    with tempfile.TemporaryDirectory() as tmp:
        fake_results(Path(tmp)/'one', 1)
        first = next((Path(tmp)/'one').glob('*/info.json')).parent
        info = json.loads((first/'info.json').read_text())
        for i in range(n):
            (folder/f's{i:04}').mkdir(parents=True)
            for k in ('target.png','pred.png'): shutil.copy(first/k, folder/f's{i:04}'/k)
            info['scores']['psnr'] += .01
            (folder/f's{i:04}/info.json').write_text(json.dumps(info | dict(name=f's{i:04}')))
        (folder/'summary.json').write_text(json.dumps(dict(n=n)))

def drive_many(page, host, shots):
    "A thousand samples: each step must be quick"
    host.locator('.stage[aria-busy=false]').wait_for(timeout=60_000)
    check('1000 of 1000 samples' in host.locator('.count').inner_text(), 'how many are shown')
    took = {}
    for what,act in dict(sort=lambda: host.locator('.sort').select_option('name'), end=lambda: (host.locator('input.sample').focus(), page.keyboard.press('End')),
                         find=lambda: host.locator('.find').fill('s05')).items():
        start = time.monotonic(); act(); host.locator('.stage[aria-busy=false]').wait_for(); took[what] = time.monotonic()-start
    check(max(took.values()) < 3, f'too slow: {took}')
    check('100 of 1000' in host.locator('.count').inner_text(), 'find')
    page.screenshot(path=shots/'lab-many.png')
    return ', '.join(f'{k} {v:.2f} s' for k,v in took.items())

def drive_keys(page, widget, path):
    "From within the widget: Ctrl+S saves the notebook, and Escape gives the keys back to it; on a laptop all of it fits"
    before = path.stat().st_mtime
    widget.locator('.thumb').first.click(); page.keyboard.press('Control+s')
    until(lambda: path.stat().st_mtime > before, 'Ctrl+S in the widget should save the notebook')
    page.keyboard.press('Escape')
    inside = lambda: page.evaluate('document.activeElement.closest(".dinoinv-gallery") !== null')
    until(lambda: not inside(), 'Escape should leave the widget')
    size = page.viewport_size
    page.set_viewport_size(dict(width=1366, height=720)); time.sleep(.5)
    height = widget.bounding_box()['height']; check(height < 720, f'the widget is {height:.0f} px high, too much for a laptop')
    page.set_viewport_size(size)

def lab(shots):
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)
        for k,b in dict(one=1, two=2).items(): fake_results(root/k, b)
        many_results(root/'many', 1000)
        nbformat.write(notebook("from dinoinv.gallery import browse, Gallery\nbrowse('one', 'two')", "browse('many')", "display(Gallery('one', 'two'), Gallery('one'))"), root/'live.ipynb')
        from dinoinv.gallery import Gallery, Runs, data_of
        sent = notebook("Gallery('one')") # as if by somebody else: not trusted here
        sent.cells[0].outputs = [nbformat.v4.new_output('execute_result', {'text/html':Gallery(root/'one')._repr_html_(), 'text/plain':'gallery'}, execution_count=1)]
        nbformat.write(sent, root/'sent.ipynb')
        Gallery(root/'one').save(root/'page.html')
        with jupyter(root) as url, chromium() as browser:
            page = browser.new_page(viewport=dict(width=1280, height=1100))
            try:
                page.goto(url('live.ipynb'))
                page.locator('.jp-Notebook .cm-content').first.click(timeout=60_000)
                page.locator('.jp-Notebook-ExecutionIndicator[data-status=idle]').first.wait_for(timeout=60_000)
                page.keyboard.press('Shift+Enter')
                runs = Runs(root/'one', root/'two')
                widget = page.locator('.jp-OutputArea-output .dinoinv-gallery').first
                widget.locator('.stage').wait_for(timeout=60_000)
                drive_gallery(page, widget, data_of(runs, runs.samples))
                widget.screenshot(path=shots/'lab-browse.png'); print('JupyterLab: the widget does what its controls say')
                drive_keys(page, widget, root/'live.ipynb'); print('JupyterLab: Ctrl+S saves, Escape leaves, and a laptop shows all of it')
                page.locator('.jp-Notebook .cm-content').nth(1).click(); page.keyboard.press('Shift+Enter')
                many = page.locator('.jp-OutputArea-output .dinoinv-gallery').nth(1)
                many.locator('.stage').wait_for(timeout=60_000); many.scroll_into_view_if_needed()
                print('JupyterLab: a thousand samples:', drive_many(page, many, shots))
                page.locator('.jp-Notebook .cm-content').nth(2).click(); page.keyboard.press('Shift+Enter')
                page.locator('.dinoinv-gallery[data-gallery]').nth(1).locator('.stage').wait_for(timeout=60_000) # both have arrived
                page.keyboard.press('Control+s'); until(lambda: (root/'live.ipynb').read_text().count('data-gallery=') >= 2, 'the notebook was not saved')
                page.goto(url('live.ipynb')); host = page.locator('.dinoinv-gallery[data-gallery]').first; host.locator('.stage').wait_for(timeout=60_000)
                title = lambda: host.locator('.facts h3').get_attribute('title')
                host.locator('.thumb').nth(1).click(); changes(title, lambda: page.keyboard.press('ArrowRight'), 'arrow key in a saved gallery')
                check(page.locator('.jp-Notebook .jp-mod-active .dinoinv-gallery').count(), 'the arrow key should stay in the gallery')
                check(page.locator('.dinoinv-gallery[data-gallery]').nth(1).locator('.facts h3').get_attribute('title')!=title(), 'two galleries on a page should not move together')
                page.screenshot(path=shots/'lab-gallery.png'); print('JupyterLab: a saved gallery works')
                page.goto(url('sent.ipynb')); fig = page.locator('.jp-OutputArea-output figure img').first; fig.wait_for(timeout=60_000)
                check(fig.evaluate('e => e.decode().then(() => e.naturalWidth)')>50, 'no picture without trust')
                page.screenshot(path=shots/'lab-untrusted.png'); print('JupyterLab: an untrusted gallery shows its pictures')
                drive_alone(page, (root/'page.html').as_uri(), shots); print('a page of its own: keys without a click, links')
            except (AssertionError, Error) as e:
                page.screenshot(path=shots/'lab-failed.png')
                raise AssertionError(f'JupyterLab: {e}') from e

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(dest='cmd', required=True)
    for name in 'gallery','try': sub.add_parser(name).add_argument('site')
    sub.add_parser('lab')
    for p in sub.choices.values(): p.add_argument('--shots', type=Path, help='folder for screenshots')
    a = vars(ap.parse_args())
    with tempfile.TemporaryDirectory() as tmp:
        shots = a.pop('shots') or Path(tmp)
        shots.mkdir(parents=True, exist_ok=True)
        try: {'gallery': gallery, 'try': try_, 'lab': lab}[a.pop('cmd')](**a, shots=shots)
        except AssertionError as e: sys.exit(f'FAILED: {e}')

if __name__=='__main__': main()
