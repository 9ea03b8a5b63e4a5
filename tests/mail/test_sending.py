"""From the job to a real SMTP server: at least once, over TLS, and nothing personal on the way."""

from paqett import mails
from post import Post


def test_a_mail_arrives_by_smtp_and_its_job_is_gone(postman, person, office) -> None:
    post = Post()
    postman.through(office(post))
    ann = person(email_verified_at=None)
    postman.write(lambda conn: mails.defer(conn, "verify_email", ann.id))
    postman.work()
    assert post.recipients == [["ann@example.org"]]
    assert post.mails[0]["Subject"] == "Confirm your e-mail address"
    assert postman.rows("SELECT * FROM procrastinate_jobs") == []
