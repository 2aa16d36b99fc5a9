"""The pages, in one table."""

from . import acting, correcting, downloading, entering, looking, uploading
from .visits import Page

BATCH = "/batches/{batch_id:uuid}"
ITEM = f"{BATCH}/items/{{item_number:number}}"

PAGES: tuple[Page, ...] = (
    Page("GET", "", looking.batches),
    Page("GET", "/static/{name}", entering.file, public=True, static=True),
    Page("GET", "/sign-in", entering.sign_in_page, public=True),
    Page("POST", "/sign-in", entering.sign_in, public=True),
    Page("POST", "/sign-out", entering.sign_out, public=True),
    Page("GET", "/types", looking.batch_types),
    Page("GET", "/types/{name:path}", looking.batch_type),
    Page("GET", "/upload", uploading.upload_page),
    Page("POST", "/upload", uploading.upload, takes_file=True),
    Page("GET", BATCH, looking.batch),
    Page("GET", f"{BATCH}/items", looking.items),
    Page("GET", ITEM, looking.item),
    Page("GET", f"{BATCH}/logs", looking.logs),
    Page("GET", f"{ITEM}/edit", correcting.edit_page),
    Page("POST", f"{ITEM}/edit", correcting.edit),
    Page("GET", f"{BATCH}/corrected", uploading.corrected_page),
    Page("POST", f"{BATCH}/corrected", uploading.corrected, takes_file=True),
    Page("GET", f"{BATCH}/download", downloading.ask),
    Page("POST", f"{BATCH}/download", downloading.download),
    Page("POST", f"{BATCH}/dry-run", acting.dry_run),
    Page("GET", f"{BATCH}/{{action}}", acting.ask),
    Page("POST", f"{BATCH}/{{action}}", acting.act),
    Page("GET", "/{path:path}", entering.nowhere),
)
