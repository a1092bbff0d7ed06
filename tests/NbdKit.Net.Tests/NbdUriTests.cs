using System.Net;
using System.Net.Sockets;

namespace NbdKit.Tests;

/// <summary>The NBD URI specification.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class NbdUriTests
{
    // The URI; then its endpoint as text, the export, and whether TLS is required.
    [Property("Rule", "C090")]
    [TestCase("nbd://example.com", "example.com:10809", "", false)]
    [TestCase("nbd://example.com/", "example.com:10809", "", false)]
    [TestCase("nbd://example.com/disk", "example.com:10809", "disk", false)]
    [TestCase("nbd://example.com//disk", "example.com:10809", "/disk", false)]
    [TestCase("nbd://example.com/a/b/../c/", "example.com:10809", "a/b/../c/", false)]
    [TestCase("nbd://example.com/..", "example.com:10809", "..", false)]
    [TestCase("nbd://example.com/hello%20world", "example.com:10809", "hello world", false)]
    [TestCase("nbd://example.com/a%2Fb%3fc%23d%25e", "example.com:10809", "a/b?c#d%e", false)]
    [TestCase("nbd://example.com/gr%C3%B6%C3%9Fer", "example.com:10809", "größer", false)]
    [TestCase("nbd://example.com/größer", "example.com:10809", "größer", false)]
    [TestCase("nbd://example.com:1234/x", "example.com:1234", "x", false)]
    [TestCase("nbd://example.com:/x", "example.com:10809", "x", false)]
    [TestCase("NBD://example.com/X", "example.com:10809", "X", false)]
    [TestCase("nbd:///x", "localhost:10809", "x", false)]
    [TestCase("nbd://192.0.2.1/x", "192.0.2.1:10809", "x", false)]
    [TestCase("nbd://[::1]", "[::1]:10809", "", false)]
    [TestCase("nbd://[2001:db8::5]:99/x", "[2001:db8::5]:99", "x", false)]
    [TestCase("nbd://[fe80::1%253]/", "[fe80::1%3]:10809", "", false)]
    [TestCase("nbds://example.com/x", "example.com:10809", "x", true)]
    [TestCase("nbds://alice@example.com/x", "example.com:10809", "x", true)]
    [TestCase("nbd+unix:///?socket=/tmp/s", "/tmp/s", "", false)]
    [TestCase("nbd+unix:///disk?socket=nbd.sock", "nbd.sock", "disk", false)]
    [TestCase("nbd+unix:////disk?socket=/tmp/s", "/tmp/s", "/disk", false)]
    [TestCase("nbd+unix://?socket=/tmp/s", "/tmp/s", "", false)]
    [TestCase("nbd+unix:///?socket=/tmp/a%20b%26c", "/tmp/a b&c", "", false)]
    [TestCase("nbd+unix:///?socket=%00/abstract", "@/abstract", "", false)]
    [TestCase("nbds+unix://alice@/?socket=/tmp/s&tls-hostname=h", "/tmp/s", "", true)]
    [TestCase("nbd+vsock:///", "vsock:2:10809", "", false)]
    [TestCase("nbd+vsock://3/x", "vsock:3:10809", "x", false)]
    [TestCase("nbds+vsock://4294967295:70000/x", "vsock:4294967295:70000", "x", true)]
    public void What_is_a_URI_is_understood_C090(string uri, string endPoint, string export, bool tls)
    {
        NbdUri parsed = NbdUri.Parse(uri);

        string shown = parsed.EndPoint is DnsEndPoint dns ? $"{dns.Host}:{dns.Port}" : parsed.EndPoint.ToString()!;
        Assert.That((shown, parsed.ExportName, parsed.IsTls), Is.EqualTo((endPoint, export, tls)));
        Assert.That(NbdUri.TryParse(uri, out NbdUri? same), Is.True);
        Assert.That(same, Is.EqualTo(parsed));
        Assert.That(NbdUri.Parse(parsed.ToString()), Is.EqualTo(parsed), $"there and back: {parsed}");
        if (Uri.TryCreate(uri, UriKind.Absolute, out Uri? framework))
        {
            // What the framework makes of it must not matter.
            Assert.That(NbdUri.Parse(framework), Is.EqualTo(parsed));
            Assert.That(NbdUri.Parse(parsed.ToUri()), Is.EqualTo(parsed));
        }
        else
        {
            Assert.Throws<UriFormatException>(() => parsed.ToUri());
        }
    }

    [Property("Rule", "C090")]
    [TestCase("", "no scheme")]
    [TestCase("example.com", "no scheme")]
    [TestCase("http://example.com/", "scheme http")]
    [TestCase("nbd+ssh://example.com/", "scheme nbd+ssh")]
    [TestCase("nbd:unix:/tmp/s", "//")]
    [TestCase("nbd:/disk", "//")]
    [TestCase("nbd://example.com/a b", "escaped")]
    [TestCase("nbd://example.com/a\r\nb", "escaped")]
    [TestCase("nbd://example.com/a#b", "fragment")]
    [TestCase("nbd://example.com/%00", "NUL")]
    [TestCase("nbd://example.com/%", "begins no escape")]
    [TestCase("nbd://example.com/%4", "begins no escape")]
    [TestCase("nbd://example.com/%zz", "begins no escape")]
    [TestCase("nbd://example.com/%+4", "begins no escape")]
    [TestCase("nbd://example.com/%ff", "UTF-8")]
    [TestCase("nbd\u202ex://example.com/", "\\u{202e}")]
    [TestCase("nbd+vsock://\u202e/", "\\u{202e}")]
    [TestCase("nbd://example.com/%ed%a0%80", "UTF-8")]
    [TestCase("nbd://example.com:0/", "port")]
    [TestCase("nbd://example.com:65536/", "port")]
    [TestCase("nbd://example.com:nbd/", "port")]
    [TestCase("nbd://example.com:+1/", "port")]
    [TestCase("nbd://[::1/", "bracket")]
    [TestCase("nbd://[::1]x/", "brackets")]
    [TestCase("nbd://[127.0.0.1]/", "IPv6")]
    [TestCase("nbd://::1/", "port")]
    [TestCase("nbd://127.1/", "host")]
    [TestCase("nbd://0x7f.0x1/", "host")]
    [TestCase("nbd://2130706433/", "host")]
    [TestCase("nbd://127.0.0.01/", "host")]
    [TestCase("nbd://exa%00mple/", "host")]
    [TestCase("nbd://a,b/", "host")]
    [TestCase("nbd+unix:///x", "socket")]
    [TestCase("nbd+unix:///x?socket=", "socket")]
    [TestCase("nbd+unix://host/x?socket=/tmp/s", "host and a socket")]
    [TestCase("nbd+unix:///x?socket=/tmp/a%00b", "socket")]
    [TestCase("nbd+unix:///x?socket=/a&socket=/b", "twice")]
    [TestCase("nbd://example.com/?socket=/tmp/s", "socket")]
    [TestCase("nbd+vsock://host/", "number of a machine")]
    [TestCase("nbd+vsock://4294967296/", "number of a machine")]
    [TestCase("nbd://example.com/?x-mine=1", "x-mine, which is unknown")]
    [TestCase("nbd://example.com/?tls-hostname", "without a value")]
    [TestCase("nbds://example.com/?tls-hostname=", "tls-hostname")]
    [TestCase("nbds://example.com/?tls-type=psk", "psk")]
    [TestCase("nbds://example.com/?tls-type=anon", "anon")]
    [TestCase("nbds://example.com/?tls-type=other", "unknown type")]
    [TestCase("nbds://example.com/?tls-verify-peer=maybe", "tls-verify-peer")]
    [TestCase("nbds://example.com/?tls-psk-file=/etc/psk", "pre-shared")]
    public void What_is_none_is_refused_and_says_why_C090(string uri, string why)
    {
        UriFormatException refused = Assert.Throws<UriFormatException>(() => NbdUri.Parse(uri))!;

        Assert.That(refused.Message, Does.Contain(why));
        Assert.That(refused.Message.Any(char.IsControl), Is.False);
        Assert.That(NbdUri.TryParse(uri, out _), Is.False);
    }

    [Test]
    public void What_is_not_Unicode_is_refused()
    {
        // Not as test cases: the name of a test must be Unicode.
        foreach (string uri in new[] { "nbd://h/\ud800", "nbd://h/%41\ud800", "nbd://\ud800%41/", "nbd+unix:///?socket=%41\ud800" })
        {
            Assert.Throws<UriFormatException>(() => NbdUri.Parse(uri));
        }
    }

    [Property("Rule", "C090")]
    [Property("Rule", "CVE_2025_14946")]
    [TestCase("nbd://-oProxyCommand=touch,x/")]
    [TestCase("nbd://-oX/disk")]
    [TestCase("nbd+ssh://-oProxyCommand=touch/")]
    [TestCase("nbds://%2DoX/")]
    [TestCase("nbd://user@-oX/")]
    [Property("Threat", "CVE-2025-14946")]
    public void A_host_is_never_an_option_of_a_program_C090_CVE_2025_14946(string uri)
        => Assert.Throws<UriFormatException>(() => NbdUri.Parse(uri));

    [Test, Property("Rule", "C090"), Property("Rule", "CVE_2025_14946")]
    [Property("Threat", "CVE-2025-14946")]
    public void Local_files_are_named_only_where_that_is_allowed_C090_CVE_2025_14946()
    {
        const string Uri = "nbds://example.com/?tls-certificates=/etc/pki/a%20b";

        Assert.That(
            Assert.Throws<UriFormatException>(() => NbdUri.Parse(Uri))!.Message, Does.Contain("not allowed"));
        Assert.That(NbdUri.TryParse(Uri, out _), Is.False);
        NbdUri parsed = NbdUri.Parse(Uri, allowLocalFiles: true);
        Assert.That(parsed.TlsCertificates, Is.EqualTo("/etc/pki/a b"));
        Assert.That(NbdUri.Parse(parsed.ToString(), allowLocalFiles: true), Is.EqualTo(parsed));
        Assert.Throws<UriFormatException>(() => NbdHandshake.ConnectAsync(Uri));
    }

    [Test]
    public void What_concerns_TLS_is_kept()
    {
        NbdUri parsed = NbdUri.Parse("nbds+unix://alice@/x?tls-type=x509&socket=/tmp/s&tls-verify-peer=0&tls-hostname=a.example");

        Assert.That(
            (parsed.UserName, parsed.TlsHostName, parsed.TlsVerifyPeer), Is.EqualTo(("alice", "a.example", false)));
        Assert.That(NbdUri.Parse(parsed.ToString()), Is.EqualTo(parsed));
        Assert.That(NbdUri.Parse("nbds://h/?tls-verify-peer=1").TlsVerifyPeer, Is.True);
        Assert.That(NbdUri.Parse("nbds://h/").TlsVerifyPeer, Is.True, "by default the peer is verified");
    }

    [Test]
    public void A_URI_is_built_from_its_parts()
    {
        var uri = new NbdUri { EndPoint = new DnsEndPoint("example.com", 10809), ExportName = "/a b", IsTls = true };

        Assert.That(uri.ToString(), Is.EqualTo("nbds://example.com/%2Fa%20b"));
        Assert.Throws<ArgumentException>(() => _ = new NbdUri { EndPoint = new OtherEndPoint() });
        Assert.Throws<ArgumentException>(() => _ = uri with { ExportName = "a\0" });
        Assert.That(
            new NbdUri { EndPoint = new UnixDomainSocketEndPoint("\0name") }.ToString(), Is.EqualTo("nbd+unix:///?socket=%00name"));
        Assert.That(
            new NbdUri { EndPoint = new UnixDomainSocketEndPoint("@name") }.ToString(), Is.EqualTo("nbd+unix:///?socket=%40name"));
    }

    [Test]
    public void The_address_of_a_vsock_has_the_layout_of_the_kernel()
    {
        var endPoint = new VsockEndPoint(3, 0x01020304);

        SocketAddress address = endPoint.Serialize();

        Assert.That(address.Size, Is.EqualTo(16));
        Assert.That(BitConverter.ToUInt16(address.Buffer.Span), Is.EqualTo(40));
        Assert.That(BitConverter.ToUInt32(address.Buffer.Span[4..]), Is.EqualTo(0x01020304));
        Assert.That(BitConverter.ToUInt32(address.Buffer.Span[8..]), Is.EqualTo(3));
        Assert.That(address.Buffer.Span[12..16].ToArray(), Is.All.Zero);
        Assert.That(endPoint.Create(address), Is.EqualTo(endPoint));
        Assert.That(endPoint.GetHashCode(), Is.EqualTo(new VsockEndPoint(3, 0x01020304).GetHashCode()));
        Assert.That(endPoint, Is.Not.EqualTo(new VsockEndPoint(4, 0x01020304)));
        Assert.Throws<ArgumentException>(() => endPoint.Create(new IPEndPoint(IPAddress.Loopback, 1).Serialize()));
    }

    private sealed class OtherEndPoint : EndPoint;
}
