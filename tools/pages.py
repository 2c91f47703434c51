"""What smalldocs leaves out of a page: one menu for all screens, pictures as files, tables and code that fit, and its words for the search.

`finish` is called by docs.py on each page; it rewrites the page in place and returns what the search knows of it.
"""
import re, subprocess, tarfile
from base64 import b64decode
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote

from bs4 import BeautifulSoup
from PIL import Image

CACHE = Path.home()/'.cache/dinoinv-site'
FONTS = dict(sans='@fontsource-variable/source-sans-3@5.3.1', mono='@fontsource-variable/source-code-pro@5.3.1')
FACE = '\n@font-face {{ font-family: "dinoinv {name}"; font-style: {style}; font-weight: 200 900; font-display: swap; src: url("{url}"); }}'
# Before the page is painted: light or dark, as chosen here before, or else as the browser has it
SCHEME = """(() => {
  const dark = (localStorage.getItem('scheme') ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark'
  document.documentElement.dataset.bsTheme = dark ? 'dark' : 'light'
  document.documentElement.classList.toggle('quarto-dark', dark)
})()"""
MENU = ('<button class="quarto-btn-toggle" type="button" aria-controls="quarto-sidebar" aria-expanded="false">'
        '<span aria-hidden="true">☰</span> Menu</button>')
LIGHT_OR_DARK = '<button class="scheme" type="button" aria-label="Light or dark" title="Light or dark"><span aria-hidden="true">◐</span></button>'
NUMBER = re.compile(r'(?=.*\d)[\s\d.,:±+−–—×%/()\[\]∞<>≥≤~-]+(dB|[kKMG]i?B?|px|m?s|h|min)?\s*', re.S)

def fonts(out):
    "The fonts of the site as files of its own; where npm can't be had, the reader's own fonts stand in"
    faces = ''
    CACHE.mkdir(parents=True, exist_ok=True)
    for name,package in FONTS.items():
        archive = CACHE/(package[1:].replace('/', '-').replace('@', '-')+'.tgz')
        if not archive.exists():
            try: subprocess.run(['npm', 'pack', package], cwd=CACHE, check=True, capture_output=True, timeout=60)
            except (OSError, subprocess.SubprocessError):
                return print('no npm, or no network for it: the site is built without fonts of its own')
        with tarfile.open(archive) as tar:
            for member in tar:
                m = re.search(r'-latin-wght-(normal|italic)\.woff2$', member.name)
                if not m: continue
                url = f'site_libs/fonts/{Path(member.name).name}'
                (out/url).parent.mkdir(parents=True, exist_ok=True)
                (out/url).write_bytes(tar.extractfile(member).read())
                faces += FACE.format(name=name, style=m[1], url=url)
    with open(out/'styles.css', 'a') as f: f.write(faces)

def slim(out):
    "The theme without the fonts that it would load from elsewhere, and without rules for classes that no page and no script names"
    used = set(re.findall(r'[\w-]+', ' '.join(p.read_text() for p in out.rglob('*.js'))))
    for p in out.rglob('*.html'):
        for names in re.findall(r'class="([^"]*)"', p.read_text()): used.update(names.split())
    def kept(rule):
        needs = {o: set(re.findall(r'\.([a-zA-Z][\w-]*)', re.sub(r':not\([^)]*\)', '', o))) for o in rule[1].split(',')}
        left = [o for o,names in needs.items() if names <= used]
        return f"{','.join(left)}{{{rule[2]}}}" if left else ''
    for p in (out/'site_libs/themes').glob('*.css'):
        css = re.sub(r'@import url\([^)]*\);', '', p.read_text())
        p.write_text(re.sub(r'([^{}@;]+)\{([^{}]*)\}', kept, css))

# ---- the head and the menu ----

def piece(text): return BeautifulSoup(text, 'html.parser')

def head(soup, page, out, base, card):
    "Canonical address, social card, and the colours of the page before it is painted"
    where = page.relative_to(out).as_posix()
    up = '../'*where.count('/')
    unused = ['bootstrap-icons', 'fuse', 'katex'] + ['bootstrap.bundle']*(not soup.select('main [data-bs-toggle]'))
    for k in unused:
        for o in soup.select(f'head :is([href*="{k}"], [src*="{k}"])'): o.decompose()
    extra = f'<link rel="canonical" href="{base}{where}"><script>{SCHEME}</script>'
    extra += ''.join(f'<script src="{up}site_libs/{k}.js" {how}></script>' for k,how in (('search', ''), ('site', 'defer')))
    if not soup.select('meta[property="og:image"]'): extra += f'<meta property="og:image" content="{base}images/{card}">'
    if page.name=='404.html': soup.head.insert(0, piece(f'<base href="{base}">')) # it is shown at any address
    soup.head.find('script').insert_before(piece(extra))

def header(soup, version):
    "One row: menu (on a phone), title, links, search, light or dark"
    bar = soup.select_one('.navbar-container')
    bar.insert(0, piece(MENU))
    bar.select_one('.navbar-title').append(piece(f' <small>{version}</small>'))
    bar.append(piece(LIGHT_OR_DARK))
    soup.select_one('.quarto-secondary-nav').decompose()
    for o in soup.select('.quarto-title-breadcrumbs'): o['class'] = ['quarto-page-breadcrumbs'] # on a phone, too
    names = {'.navbar': 'Site', '#TOC': 'On this page', '#TOC-body': 'On this page, folded', '.page-navigation': 'Before and after'}
    for css,name in names.items():
        for o in soup.select(css): o['aria-label'] = name
    for o in soup.select('#quarto-margin-sidebar'): o['role'] = 'complementary'
    soup.body.insert(0, piece('<a class="skip" href="#quarto-document-content">Skip to the text</a>'))

def sidebar(soup):
    "The sections of the sidebar fold without a script; the last one, the internals, is folded until one is in it"
    nav = soup.select_one('#quarto-sidebar')
    nav['class'],nav['aria-label'] = 'sidebar sidebar-navigation docked','All pages'
    sections = nav.select('.sidebar-item-section')
    for o in sections:
        fold = soup.new_tag('details', open='')
        if o is sections[-1] and not o.select('.active'): del fold['open']
        o.select_one('.sidebar-item-container').replace_with(piece(f"<summary>{o.select_one('.menu-text').decode_contents()}</summary>"))
        o.find('ul')['class'] = 'list-unstyled sidebar-section'
        fold.extend(list(o.contents))
        o.append(fold)

def contents(soup):
    "The list of contents in the text, which phones show, folded"
    toc = soup.select_one('#TOC-body')
    if not toc: return
    toc.h2.decompose()
    toc.wrap(soup.new_tag('details', attrs={'class':'contents'})).insert(0, piece('<summary>On this page</summary>'))

# ---- the text ----

def on_paper(image):
    "Whether a picture is a figure drawn on white: its four corners are white, or transparent"
    image = image.convert('RGBA')
    corners = [image.getpixel((x, y)) for x in (0, image.width-1) for y in (0, image.height-1)]
    return all(min(r, g, b) > 250 or a < 5 for r,g,b,a in corners)

def pictures(soup, page):
    """Pictures that stand in the page become files beside it, without loss, and come when they are looked at.
    Figures on white are marked, so that a dark page can give them a margin"""
    folder = page.with_name(page.stem+'_files')
    for img in soup.select('img[src]'):
        img['loading'],img['decoding'] = 'lazy','async'
        kind,_,content = img['src'].partition(';base64,')
        file = page.parent/unquote(kind)
        if content and kind!='data:image/svg+xml': image = Image.open(BytesIO(content := b64decode(content)))
        elif file.suffix in ('.jpg','.png','.webp') and file.is_file(): image = Image.open(file)
        else: continue
        if on_paper(image) and not img.find_parent(class_='wipe'): img['class'] = [*img.get('class', []), 'paper']
        if not content: continue
        end = kind.rpartition('/')[2]
        if not img.get('width'): img['width'],img['height'] = image.size # the page doesn't jump when they come
        if end=='png':
            small = BytesIO()
            image.convert('RGBA' if image.mode in ('RGBA','P','LA') else 'RGB').save(small, 'webp', lossless=True, method=1)
            if small.tell() < len(content): content,end = small.getvalue(),'webp'
        file = folder/f'{sha256(content).hexdigest()[:12]}.{end}'
        folder.mkdir(exist_ok=True)
        file.write_bytes(content)
        img['src'] = f'{folder.name}/{file.name}'

def maths(soup):
    "Formulas as MathML, which browsers draw themselves"
    for o in soup.select('span.math'):
        from latex2mathml.converter import convert
        o.replace_with(piece(convert(o.get_text().strip()[2:-2], display='block' if 'display' in o['class'] else 'inline')))

def hang(code):
    "Each long line of code in a span that says how far it is indented, so that what doesn't fit hangs below its beginning"
    lines,within,newline = [],'','\n'
    for line in code.decode_contents().split('\n'):
        line = within+line
        opened = re.findall(r'<span[^>]*>|</span>', line)
        within = opened[-1] if opened and opened[-1]!='</span>' else ''
        words = re.sub(r'<[^>]+>|&\w+(?=;)', '', line) # with one letter for each that HTML writes as several
        indent = len(words)-len(words.lstrip(' '))
        line += '</span>' if within else ''
        lines.append(f'<span class="line" style="--in:{indent}ch">{line}</span>' if len(words) > 36 else line) # 36 fit on a phone
    code.clear()
    code.extend(list(piece(f"<pre>{newline.join(lines)}</pre>").pre.contents)) # in a `pre`, or spaces are lost

def text(soup):
    "What can be scrolled can be reached by keyboard; numbers in tables stay in one piece; icons that were letters of a font go"
    for o in soup.select('i.bi'): o.decompose()
    for o in soup.select('main pre > code.sourceCode'): hang(o)
    for o in soup.select('main pre'): o['tabindex'] = '0'
    for o in soup.select('main .code-copy-button'): o['aria-label'] = o['title'] = 'Copy'
    for o in soup.select('main table'):
        if 'sd-table' not in o.parent.get('class', []): o.wrap(soup.new_tag('div', attrs={'class':'sd-table'}))
        o.parent['tabindex'],o.parent['role'],o.parent['aria-label'] = '0','group','Table'
        for cell in o.select('th, td'):
            if NUMBER.fullmatch(cell.get_text()): cell['class'] = [*cell.get('class', []), 'number']

# ---- the search ----

def sections(soup, where, words):
    "An entry for the page and one for each of its sections: title, heading, and text without code or what code printed"
    title,main = soup.select_one('h1.title'),soup.main
    if not main or where=='404.html': return
    entries = [dict(href=where, section='', words=words, text=[])]
    for o in main.select('[data-anchor-id], p, li, figcaption, td'):
        if o.get('data-anchor-id'):
            entries.append(dict(href=f"{where}#{o['data-anchor-id']}", section=o.get_text(' ', strip=True), words='', text=[]))
        elif not o.find_parent(['li', 'nav']) and not o.find_parent(class_=['dinoinv-gallery', 'code']):
            entries[-1]['text'].append(o.get_text(' ', strip=True))
    for o in entries: yield o | dict(title=title.get_text() if title else where, text=' '.join(' '.join(o['text']).split()))

def finish(page, out, base, version, card, words):
    "Rewrite `page`, a file of the site at `out`, and return its entries for the search"
    soup = BeautifulSoup(page.read_text(), 'html.parser')
    head(soup, page, out, base, card)
    header(soup, version)
    sidebar(soup)
    contents(soup)
    pictures(soup, page)
    maths(soup)
    text(soup)
    where = page.relative_to(out).as_posix()
    found = list(sections(soup, where, words))
    page.write_text(str(soup))
    return found
