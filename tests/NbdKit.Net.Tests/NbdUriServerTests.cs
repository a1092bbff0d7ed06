using System.Net;
using System.Net.Sockets;

namespace NbdKit.Tests;

/// <summary>The URIs that a server tells of itself.</summary>
public sealed class NbdUriServerTests
{
    [TestCase("127.0.0.1", 10809, "", "nbd://127.0.0.1/")]
    [TestCase("127.0.0.1", 10810, "", "nbd://127.0.0.1:10810/")]
    [TestCase("0.0.0.0", 10809, "", "nbd://localhost/")]
    [TestCase("::", 1, "", "nbd://localhost:1/")]
    [TestCase("::1", 10809, "disk", "nbd://[::1]/disk")]
    [TestCase("192.0.2.1", 10809, "a b", "nbd://192.0.2.1/a%20b")]
    [TestCase("192.0.2.1", 10809, "a/b?c#d%e", "nbd://192.0.2.1/a%2Fb%3Fc%23d%25e")]
    [TestCase("192.0.2.1", 10809, "é", "nbd://192.0.2.1/%C3%A9")]
    public void An_address_becomes_a_URI_of_TCP(string address, int port, string export, string expected)
        => Assert.That(NbdUri.For(new IPEndPoint(IPAddress.Parse(address), port), export).AbsoluteUri, Is.EqualTo(expected));

    [TestCase("/tmp/sock", "", "nbd+unix:///?socket=/tmp/sock")]
    [TestCase("/tmp/a b", "disk", "nbd+unix:///disk?socket=/tmp/a%20b")]
    [TestCase("/tmp/a?b&c#d%e", "", "nbd+unix:///?socket=/tmp/a%3Fb%26c%23d%25e")]
    public void A_path_becomes_a_URI_of_a_Unix_socket(string path, string export, string expected)
        => Assert.That(NbdUri.For(new UnixDomainSocketEndPoint(path), export).AbsoluteUri, Is.EqualTo(expected));

    [TestCase(".")]
    [TestCase("..")]
    [TestCase("a/../b")]
    [TestCase("./x")]
    public void Names_of_dots_are_names_and_no_way_up(string export)
    {
        string uri = NbdUri.For(new IPEndPoint(IPAddress.Loopback, 10809), export).AbsoluteUri;
        Assert.That(Uri.UnescapeDataString(uri["nbd://127.0.0.1/".Length..]), Is.EqualTo(export), uri);
    }

    [Test]
    public void An_address_with_a_scope_keeps_it()
        => Assert.That(
            NbdUri.For(new IPEndPoint(IPAddress.Parse("fe80::1%3"), 10809), "").AbsoluteUri,
            Does.StartWith("nbd://[fe80::1").And.EndsWith("]/"));
}
