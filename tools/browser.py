"""Drive the reconstructions' browsers as a person would, in Chromium: the gallery on its page of the built site, and the widget in JupyterLab.

    python tools/browser.py gallery SITE [--shots DIR]   the gallery of the site in SITE: desktop and phone, light and dark
    python tools/browser.py lab [--shots DIR]            the widget, and a saved gallery, in a JupyterLab of its own

Both fail with the first thing that doesn't do what it should, and leave screenshots in DIR.
"""
import argparse, functools, json, os, secrets, shutil, socket, subprocess, sys, tempfile, threading, time, urllib.request
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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

# ---- the gallery of the built site ----

def drive_gallery(page):
    host = page.locator('.dinoinv-gallery').first
    host.scroll_into_view_if_needed()
    data = json.loads(host.get_attribute('data-gallery'))
    run = lambda s: s['rows']['this run']
    at = lambda css: host.locator(css)
    button = lambda name: host.get_by_role('button', name=name, exact=True)
    title = lambda: at('.facts h3').inner_text()
    shown = lambda: at('.thumb').evaluate_all('o => o.map(e => e.title)')
    def stage(): # once it has settled
        a,b = None,at('.stage').screenshot()
        while a!=b: a,b = b,at('.stage').screenshot()
        return b
    order = lambda f, reverse=False: [s['name'] for s in sorted(data['samples'], key=f, reverse=reverse)]

    check(title()==shown()[0]==order(lambda s: run(s)[0])[0], 'it should open with the worst PSNR')
    check(data['made'] in at('.made').inner_text(), 'the encoder should be named')
    at('.sort').select_option('ssim'); check(shown()==order(lambda s: run(s)[1]), 'sort by SSIM')
    button('worst first').click(); check(shown()==order(lambda s: run(s)[1], True), 'sort by SSIM, best first')
    at('.sort').select_option('name'); check(shown()==order(lambda s: s['name'], True), 'sort by name, backwards')

    group = data['samples'][-1]['group']
    at('select.group').select_option(group); check(set(shown())=={s['name'] for s in data['samples'] if s['group']==group}, 'filter by texture')
    at('select.group').select_option('')
    name = data['samples'][2]['name']
    at('.find').fill(name); check(shown()==[name]==[title()], 'filter by text'); at('.find').fill('no such')
    check('nothing' in at('.count').inner_text(), 'a filter that nothing fits should say so'); at('.find').fill('')
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
    at('.stage').scroll_into_view_if_needed()
    changes(stage, lambda: drag(.5, .9), 'dragging the wipe'); check(abs(float(at('.at input').input_value())-90) < 2, 'the wipe should be where it was dragged')
    at('.at input').focus(); changes(stage, lambda: page.keyboard.press('Home'), 'the wipe by keyboard')
    changes(stage, button('side by side').click, 'side by side')
    a,b = (at(f'.pane.{k}').bounding_box() for k in ('left','right')); check(a['x']+a['width'] <= b['x']+1 and a['width'] > 100, 'two pictures beside each other')
    changes(stage, button('error map').click, 'error map')
    changes(stage, button('flicker').click, 'flicker'); changes(stage, lambda: None, 'flicker alternates', 3)
    page.keyboard.press('3'); check(button('side by side').get_attribute('aria-pressed')=='true', 'keys choose the view')
    changes(stage, lambda: page.keyboard.press('+'), 'zoom'); button('Zoom in').click()
    changes(stage, lambda: drag(.4, .2), 'panning'); changes(stage, lambda: page.keyboard.press('Shift+ArrowDown'), 'panning by keyboard')
    moves = at('.pane img').evaluate_all('o => o.map(e => getComputedStyle(e).transform)'); check(len(moves)==2 and moves[0].split(',')[0]==moves[1].split(',')[0]!='none', 'both zoom alike')
    page.keyboard.press('0'); button('wipe').click(); at('.at input').focus(); page.keyboard.press('End')
    check(at('.main').evaluate('e => [...e.children].every(o => o.scrollWidth <= o.clientWidth)'), 'something sticks out')
    if data['other']: changes(stage, lambda: at('select.l').select_option('other run'), 'the other run on the left')

def gallery(site, shots):
    site = Path(site)
    pages = [p.name for p in site.glob('*.html') if '<div class="dinoinv-gallery"' in p.read_text()]
    check('gallery.html' in pages, f'no gallery on gallery.html of {site}')
    with serving(site) as url, chromium() as browser:
        for size,width,height in (('desktop',1280,900), ('phone',390,844)):
            for scheme in ('light','dark'):
                page = browser.new_page(viewport=dict(width=width, height=height), color_scheme=scheme)
                errors = []; page.on('pageerror', lambda e: errors.append(str(e)))
                page.goto(f'{url}/gallery.html')
                scheme_of = lambda: page.locator('.dinoinv-gallery').first.evaluate('e => e.style.colorScheme')
                try:
                    drive_gallery(page)
                    check(scheme_of()==scheme, f'{scheme_of()} gallery on a {scheme} page')
                    check(page.evaluate('document.documentElement.scrollWidth <= innerWidth'), 'the page is wider than the screen')
                    check(not errors, errors)
                    if size=='desktop': changes(scheme_of, page.locator('.quarto-color-scheme-toggle').first.click, 'the colours of the site were switched')
                except (AssertionError, Error) as e: raise AssertionError(f'gallery, {size}, {scheme}: {e}') from e
                finally: page.locator('.dinoinv-gallery').first.screenshot(path=shots/f'gallery-{size}-{scheme}.png')
                page.close()
                print(f'gallery, {size}, {scheme}: sort, filter, open, keys, wipe, views, zoom')

# ---- the widget in JupyterLab ----

def fake_results(folder, blur):
    "Samples as `evaluate` leaves them; the 'decoder' is a blur"
    import numpy as np
    from PIL import ImageFilter
    from dinoinv.inference import _write_sample
    from dinoinv.features import to_tensor
    from dinoinv.textures import sample_textures
    from dinoinv.train import image_metrics
    folder.mkdir(parents=True)
    for i,t in enumerate(sample_textures(6, size=196)):
        a,b,c = (np.asarray(o) for o in (t.image, t.image.filter(ImageFilter.GaussianBlur(blur+i/4)), t.image.filter(ImageFilter.GaussianBlur(4))))
        score = lambda o: image_metrics(to_tensor(o)[None], to_tensor(a)[None])[0]
        name = f'{t.family}__{t.name}__0_0'
        _write_sample(folder, name, b, a, dict(name=name, group=t.family, height=196, width=196, scores=score(b), baselines=dict(low_pass=score(c)),
            encoder=dict(name='none, a blur', weights='0'*12, layers=None, fuse='concat')))

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

def drive_widget(page):
    out = page.locator('.jp-OutputArea-output').first # of the first cell
    img = out.locator('img').first
    img.wait_for(timeout=90_000)
    src = lambda: img.evaluate('e => fetch(e.src).then(r => r.arrayBuffer()).then(b => crypto.subtle.digest("SHA-1", b)).then(d => [...new Uint8Array(d)].join())') # the picture, not its address
    slider = lambda k: out.locator('.widget-slider', has_text=k).locator('.noUi-handle')
    def choose(k, v): out.locator('.widget-dropdown', has_text=k).locator('select').select_option(v)
    toggle = lambda k: out.locator('.widget-toggle-button', has_text=k).first
    text = lambda: out.locator('.widget-html').last.inner_text()

    slider('sample').focus()
    changes(text, lambda: changes(src, lambda: page.keyboard.press('ArrowRight'), 'sample slider, by keyboard'), 'the numbers beside the picture')
    check('2 of 6' in text(), f'second sample: {text()}')
    changes(src, out.get_by_role('button', name='▶').first.click, 'next button'); until(lambda: '3 of 6' in text(), 'third sample')
    changes(src, lambda: choose('sort', 'name'), 'sort'); until(lambda: '1 of 6' in text(), 'sorting should begin anew')
    changes(src, toggle('best first').click, 'best first')
    changes(src, toggle('wipe').click, 'wipe')
    slider('wipe').focus(); changes(src, lambda: page.keyboard.press('PageUp'), 'the wipe, by keyboard')
    changes(src, toggle('error map').click, 'error map')
    changes(src, toggle('side by side').click, 'side by side')
    slider('zoom').focus(); changes(src, lambda: page.keyboard.press('ArrowRight'), 'zoom'); slider('across').focus(); changes(src, lambda: page.keyboard.press('Home'), 'pan')
    changes(src, lambda: choose('right', 'two'), 'the other run on the right')
    changes(src, toggle('flicker').click, 'flicker'); changes(src, lambda: None, 'flicker alternates')
    toggle('side by side').click(); until(lambda: src()==(time.sleep(1) or src()), 'flicker should stop')
    n = out.locator('.widget-dropdown', has_text='texture').locator('option').all_inner_texts()
    changes(src, lambda: choose('texture', n[1]), 'filter by texture'); until(lambda: n[1] in text() and '1 of 1' in text(), 'the texture chosen')

def lab(shots):
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)
        for k,b in dict(one=1, two=2).items(): fake_results(root/k, b)
        nbformat.write(notebook("from dinoinv.gallery import browse, gallery\nbrowse('one', 'two')", "display(gallery('one', 'two'), gallery('one'))"), root/'live.ipynb')
        from dinoinv.gallery import gallery as make
        sent = notebook("gallery('one')") # as if by somebody else: not trusted here
        sent.cells[0].outputs = [nbformat.v4.new_output('execute_result', {'text/html':make(root/'one')._repr_html_(), 'text/plain':'gallery'}, execution_count=1)]
        nbformat.write(sent, root/'sent.ipynb')
        with jupyter(root) as url, chromium() as browser:
            page = browser.new_page(viewport=dict(width=1280, height=1100))
            try:
                page.goto(url('live.ipynb'))
                page.locator('.jp-Notebook .cm-content').first.click(timeout=60_000)
                page.locator('.jp-Notebook-ExecutionIndicator[data-status=idle]').first.wait_for(timeout=60_000)
                for _ in range(2): page.keyboard.press('Shift+Enter')
                drive_widget(page)
                page.screenshot(path=shots/'lab-browse.png'); print('JupyterLab: the widget does what its controls say')
                page.locator('.dinoinv-gallery .stage').first.wait_for(timeout=30_000)
                page.keyboard.press('Control+s'); until(lambda: 'dinoinv-gallery' in (root/'live.ipynb').read_text(), 'the notebook was not saved')
                page.goto(url('live.ipynb')); host = page.locator('.dinoinv-gallery').first; host.locator('.stage').wait_for(timeout=60_000)
                title = lambda: host.locator('.facts h3').inner_text()
                host.locator('.thumb').nth(1).click(); changes(title, lambda: page.keyboard.press('ArrowRight'), 'arrow key in a saved gallery')
                check(page.locator('.jp-Notebook .jp-mod-active .dinoinv-gallery').count(), 'the arrow key should stay in the gallery')
                check(page.locator('.dinoinv-gallery').nth(1).locator('.facts h3').inner_text()!=title(), 'two galleries on a page should not move together')
                page.screenshot(path=shots/'lab-gallery.png'); print('JupyterLab: a saved gallery works')
                page.goto(url('sent.ipynb')); fig = page.locator('.jp-OutputArea-output figure img').first; fig.wait_for(timeout=60_000)
                check(fig.evaluate('e => e.decode().then(() => e.naturalWidth)')>50, 'no picture without trust')
                page.screenshot(path=shots/'lab-untrusted.png'); print('JupyterLab: an untrusted gallery shows its pictures')
            except (AssertionError, Error) as e:
                page.screenshot(path=shots/'lab-failed.png')
                raise AssertionError(f'JupyterLab: {e}') from e

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(dest='cmd', required=True)
    sub.add_parser('gallery').add_argument('site')
    sub.add_parser('lab')
    for p in sub.choices.values(): p.add_argument('--shots', type=Path, help='folder for screenshots')
    a = vars(ap.parse_args())
    with tempfile.TemporaryDirectory() as tmp:
        shots = a.pop('shots') or Path(tmp)
        shots.mkdir(parents=True, exist_ok=True)
        try: globals()[a.pop('cmd')](**a, shots=shots)
        except AssertionError as e: sys.exit(f'FAILED: {e}')

if __name__=='__main__': main()
