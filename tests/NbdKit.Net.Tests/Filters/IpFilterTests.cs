using System.Net;
using System.Net.Sockets;
using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public sealed class IpFilterTests
{
    private static readonly NbdPeer Unix = new() { ProcessId = 100, UserId = 1000, GroupId = 50 };

    [TestCase("", "", "192.0.2.1", true)]
    [TestCase("192.0.2.1", "all", "192.0.2.1", true)]
    [TestCase("127.0.0.1,::1", "all", "::1", true)]
    [TestCase("127.0.0.1,::1", "any", "::2", false)]
    [TestCase("", "8.0.0.0/8", "8.255.1.2", false)]
    [TestCase("", "8.0.0.0/8", "9.0.0.0", true)]
    [TestCase("anyipv6", "all", "2001:db8::5", true)]
    [TestCase("allipv6", "all", "192.0.2.1", false)]
    [TestCase("allipv4", "all", "192.0.2.1", true)]
    [TestCase("anyunix,anyvsock", "all", "192.0.2.1", false)]
    [TestCase("192.0.2.1", "192.0.2.0/24", "192.0.2.1", true)]
    // A shared prefix of the text is none of the address.
    [TestCase("192.0.2.1", "all", "192.0.2.10", false)]
    [TestCase("192.0.2.1", "all", "192.0.2.19", false)]
    [TestCase("192.0.2.1", "all", "192.0.2.100", false)]
    [TestCase("192.0.2.1", "all", "192.0.2.199", false)]
    [TestCase("2001:db8::1", "all", "2001:db8::10", false)]
    // The edges of a prefix.
    [TestCase("0.0.0.0/0", "all", "255.255.255.255", true)]
    [TestCase("0.0.0.0/0", "all", "::1", false)]
    [TestCase("255.255.255.255/0", "all", "1.2.3.4", true)]
    [TestCase("192.0.2.1/32", "all", "192.0.2.1", true)]
    [TestCase("192.0.2.1/32", "all", "192.0.2.0", false)]
    [TestCase("192.0.2.1/31", "all", "192.0.2.0", true)]
    [TestCase("192.0.2.1/31", "all", "192.0.2.2", false)]
    [TestCase("::/0", "all", "ffff::1", true)]
    [TestCase("::/0", "all", "192.0.2.1", false)]
    [TestCase("2001:db8::2/127", "all", "2001:db8::3", true)]
    [TestCase("2001:db8::2/127", "all", "2001:db8::4", false)]
    [TestCase("2001:db8::2/128", "all", "2001:db8::3", false)]
    [TestCase("fe80::/10", "all", "febf::1", true)]
    [TestCase("fe80::/10", "all", "fec0::1", false)]
    // IPv4 in IPv6 form is IPv4, in rules and in clients.
    [TestCase("192.0.2.1", "all", "::ffff:192.0.2.1", true)]
    [TestCase("192.0.2.1", "all", "::ffff:192.0.2.2", false)]
    [TestCase("anyipv4", "all", "::ffff:192.0.2.2", true)]
    [TestCase("anyipv6", "all", "::ffff:192.0.2.2", false)]
    [TestCase("::ffff:192.0.2.0/120", "all", "192.0.2.77", true)]
    [TestCase("::ffff:192.0.2.0/120", "all", "192.0.3.77", false)]
    [TestCase("", "::ffff:192.0.2.1", "192.0.2.1", false)]
    // The scope says which link, not who.
    [TestCase("fe80::1", "all", "fe80::1%3", true)]
    [TestCase("", "fe80::1", "fe80::1%3", false)]
    [TestCase("", "fe80::1", "fe80::2%3", true)]
    [Property("Threat", "CVE-2013-6410")]
    public async Task An_address_is_judged_by_the_rules(string allow, string deny, string address, bool expected)
    {
        var peer = new NbdPeer { EndPoint = new IPEndPoint(IPAddress.Parse(address), 4711) };
        Assert.That(await IsAllowedAsync(From(allow, deny), peer), Is.EqualTo(expected));
    }

    [TestCase("allunix", "all", true)]
    [TestCase("anyunix", "all", true)]
    [TestCase("", "allunix", false)]
    [TestCase("pid:100", "all", true)]
    [TestCase("pid:10", "all", false)]
    [TestCase("uid:1000", "all", true)]
    [TestCase("uid:0", "all", false)]
    [TestCase("gid:50", "all", true)]
    [TestCase("gid:5", "all", false)]
    [TestCase("allipv4,allipv6", "all", false)]
    // A number ends where its rule ends.
    [TestCase("pid:1,uid:1000", "all", true)]
    [TestCase("gid:1,pid:100,anyipv4", "all", true)]
    [TestCase("", "uid:1,gid:50", false)]
    public async Task A_client_over_a_Unix_socket_is_judged_by_its_process(string allow, string deny, bool expected)
        => Assert.That(await IsAllowedAsync(From(allow, deny), Unix), Is.EqualTo(expected));

    [TestCase("anyvsock", "all", true)]
    [TestCase("allvsock", "all", true)]
    [TestCase("vsock-cid:3", "all", true)]
    [TestCase("vsock-cid:4", "all", false)]
    [TestCase("vsock-port:1024", "all", true)]
    [TestCase("vsock-port:3", "all", false)]
    [TestCase("", "vsock-cid:3", false)]
    [TestCase("allipv4,allipv6,allunix", "all", false)]
    public async Task A_client_over_vsock_is_judged_by_its_numbers(string allow, string deny, bool expected)
        => Assert.That(
            await IsAllowedAsync(From(allow, deny), new NbdPeer { EndPoint = new VsockLike(3, 1024) }), Is.EqualTo(expected));

    [TestCase("", "", true)]
    [TestCase("all", "all", true)]
    [TestCase("", "all", false)]
    [TestCase("", "8.0.0.0/8", false)]
    [TestCase("anyipv4,anyipv6,anyunix,anyvsock", "", false)]
    public async Task A_client_of_unknown_origin_is_refused_unless_a_rule_lets_it_in(string allow, string deny, bool expected)
    {
        Assert.That(await IsAllowedAsync(From(allow, deny), NbdPeer.Unknown), Is.EqualTo(expected));
        Assert.That(await IsAllowedAsync(From(allow, deny), new NbdPeer { EndPoint = new DnsEndPoint("x", 1) }), Is.EqualTo(expected));
    }

    [Test]
    public async Task Ranges_agree_with_the_runtimes_own()
    {
        int seed = TestContext.CurrentContext.Random.Next();
        TestContext.Out.WriteLine($"seed {seed}");
        var random = new Random(seed);
        for (int i = 0; i < 3000; i++)
        {
            byte[] network = new byte[random.Next(2) == 0 ? 4 : 16];
            random.NextBytes(network);
            network[0] |= 0x20;
            int prefix = random.Next(network.Length * 8 + 1);
            // Near the edge: flip one bit, often one that counts only just or just not.
            byte[] address = [.. network];
            int bit = Math.Clamp(prefix + random.Next(-2, 3), 0, (network.Length * 8) - 1);
            address[bit / 8] ^= (byte)(0x80 >> (bit % 8));
            byte[] masked = [.. network];
            for (int b = prefix; b < network.Length * 8; b++)
            {
                masked[b / 8] &= (byte)~(0x80 >> (b % 8));
            }
            bool expected = new IPNetwork(new IPAddress(masked), prefix).Contains(new IPAddress(address));
            var filter = new IpFilter { Allow = [$"{new IPAddress(network)}/{prefix}"], Deny = ["all"] };

            bool actual = await IsAllowedAsync(filter, new NbdPeer { EndPoint = new IPEndPoint(new IPAddress(address), 1) });

            Assert.That(actual, Is.EqualTo(expected), $"{new IPAddress(address)} in {filter.Allow[0]}");
        }
    }

    [TestCase("")]
    [TestCase("1.2.3")]
    [TestCase("1.2.3.4.5")]
    [TestCase("1.2.3.256")]
    [TestCase("1.2.3.04")]
    [TestCase("0x7f.0.0.1")]
    [TestCase("127.1")]
    [TestCase("1.2.3.4/33")]
    [TestCase("1.2.3.4/")]
    [TestCase("1.2.3.4/-1")]
    [TestCase("1.2.3.4/24/2")]
    [TestCase("1.2.3.0/255.255.255.0")]
    [TestCase("::1/129")]
    [TestCase("[::1]")]
    [TestCase("fe80::1%1")]
    [TestCase(":")]
    [TestCase("pid:")]
    [TestCase("pid:-1")]
    [TestCase("pid:1x")]
    [TestCase("uid:4294967296")]
    [TestCase("vsock-cid:x")]
    [TestCase("dn:")]
    [TestCase("host:")]
    [TestCase("host:a b")]
    [TestCase("example.com")]
    [TestCase("anyipv5")]
    [TestCase("security:unconfined")]
    [TestCase(" all")]
    public void A_rule_that_there_is_not_is_refused_and_changes_nothing(string rule)
    {
        var filter = new IpFilter { Allow = ["pid:1"], Deny = ["all"] };
        Assert.That(() => filter.Allow = ["all", rule], Throws.ArgumentException.With.Message.Contains("allow"));
        Assert.That(() => filter.SetRules([], [rule]), Throws.ArgumentException.With.Message.Contains("deny"));
        Assert.That((filter.Allow, filter.Deny), Is.EqualTo((new[] { "pid:1" }, new[] { "all" })));
    }

    [TestCase("host:known", "all", "192.0.2.7", true)]
    [TestCase("host:known", "all", "2001:db8::7%4", true)]
    [TestCase("host:known", "all", "192.0.2.8", false)]
    [TestCase("", "host:known", "192.0.2.7", false)]
    [TestCase("", "host:known", "192.0.2.8", true)]
    // A host that cannot be found is not allowed, and is denied.
    [TestCase("host:unknown", "all", "192.0.2.7", false)]
    [TestCase("", "host:unknown", "192.0.2.7", false)]
    [TestCase("192.0.2.7", "host:unknown", "192.0.2.7", true)]
    public async Task A_host_is_looked_up_when_a_client_comes(string allow, string deny, string address, bool expected)
    {
        var filter = new IpFilter
        {
            Resolver = (host, _) => host == "known"
                ? Task.FromResult(new[] { IPAddress.Parse("::ffff:192.0.2.7"), IPAddress.Parse("2001:db8::7") })
                : Task.FromException<IPAddress[]>(new SocketException((int)SocketError.HostNotFound)),
        };
        filter.SetRules(
            allow.Split(',', StringSplitOptions.RemoveEmptyEntries), deny.Split(',', StringSplitOptions.RemoveEmptyEntries));
        Assert.That(
            await IsAllowedAsync(filter, new NbdPeer { EndPoint = new IPEndPoint(IPAddress.Parse(address), 1) }), Is.EqualTo(expected));
    }

    [Test]
    public async Task Localhost_is_found_by_the_system()
        => Assert.That(await IsAllowedAsync(
            From("host:localhost", "all"), new NbdPeer { EndPoint = new IPEndPoint(IPAddress.Loopback, 1) }));

    [Test]
    public async Task The_lists_may_change_while_clients_come()
    {
        var filter = new IpFilter();
        var one = new NbdPeer { EndPoint = new IPEndPoint(IPAddress.Parse("192.0.2.1"), 1) };
        using var end = new CancellationTokenSource();
        // In both sets of rules the client is let in; in a mixture of the two it is not.
        Task changing = Task.Run(() =>
        {
            while (!end.IsCancellationRequested)
            {
                filter.SetRules(["192.0.2.1"], ["all"]);
                filter.SetRules([], ["192.0.2.2"]);
            }
        });
        for (int i = 0; i < 20_000; i++)
        {
            Assert.That(await IsAllowedAsync(filter, one));
        }
        await end.CancelAsync();
        await changing;
        filter.Deny = ["all"];
        Assert.That(await IsAllowedAsync(filter, one), Is.False);
    }

    [Test]
    public void The_parameters_are_lists_that_may_be_repeated()
    {
        var filter = (IpFilter)IpFilter.Entry.Create(new NbdParameters(
            "ip",
            [
                new("allow", "10.0.0.0/8,pid:7,uid:8"), new("allow", "anyunix,dn:CN=alice,O=Example\\, Inc"), new("allow", "::1"),
                new("deny", "issuer-dn:CN=*,O=x"), new("deny", "all"),
            ]));
        Assert.That(
            filter.Allow, Is.EqualTo(new[] { "10.0.0.0/8", "pid:7", "uid:8", "anyunix", "dn:CN=alice,O=Example\\, Inc", "::1" }));
        Assert.That(filter.Deny, Is.EqualTo(new[] { "issuer-dn:CN=*,O=x", "all" }));
        Assert.That(
            () => IpFilter.Entry.Create(new NbdParameters("ip", [new("deny", "all,")])), Throws.ArgumentException);
    }

    [TestCase("dn:CN=alice,O=Example\\\\, Inc,C=DE", true)]
    [TestCase("dn:CN=alice,*", true)]
    [TestCase("dn:*,C=DE", true)]
    [TestCase("dn:CN=a?ice*", true)]
    [TestCase("dn:CN=alice", false)]
    [TestCase("dn:CN=Alice,*", false)]
    [TestCase("dn:*bob*", false)]
    [TestCase("issuer-dn:CN=Test Authority", true)]
    [TestCase("issuer-dn:CN=alice,*", false)]
    public async Task A_rule_about_the_certificate_is_judged_at_list_and_open(string rule, bool expected)
    {
        await using var server = new NbdServer(
            NbdBackend.Compose(new TestPlugin(), new IpFilter { Allow = [rule], Deny = ["all"] }),
            new NbdServerOptions
            {
                Tls = new NbdServerTls(TestCertificates.Server)
                {
                    IsRequired = false,
                    ClientCertificates = NbdClientCertificates.Optional,
                    ClientAuthorities = TestCertificates.Authorities,
                },
            });
        var plain = new PipePair();
        await using var client = new WireClient(plain.Client, server.ServeAsync(plain.Server));
        await client.GreetAsync();
        Assert.That((await client.InfoAsync()).Type, Is.EqualTo(Rep.Policy), "in plain text there is no certificate");
        Assert.That((await client.OptAsync(Opt.List)).IsAck, Is.False);
        WireClient inside = await client.StartTlsAsync(TestCertificates.Client(TestCertificates.Alice));

        Assert.That((await inside.OptAsync(Opt.List)).IsAck, Is.EqualTo(expected));
        Assert.That((await inside.TryGoAsync()).Type, Is.EqualTo(expected ? Rep.Ack : Rep.Policy));
    }

    [Test]
    public async Task A_client_without_a_certificate_is_nobody()
    {
        await using var server = new NbdServer(
            NbdBackend.Compose(new TestPlugin(), new IpFilter { Allow = ["dn:*"], Deny = ["all"] }),
            new NbdServerOptions { Tls = new NbdServerTls(TestCertificates.Server) });
        var pipes = new PipePair();
        await using var client = new WireClient(pipes.Client, server.ServeAsync(pipes.Server));
        await client.GreetAsync();
        Assert.That((await (await client.StartTlsAsync()).TryGoAsync()).Type, Is.EqualTo(Rep.Policy));
    }

    [TestCase("", "all", false)]
    [TestCase("", "8.0.0.0/8", false)]
    [TestCase("all", "", true)]
    [Property("Threat", "nbdkit-1.40-ip-rules")]
    public async Task A_bare_stream_is_refused_before_the_greeting(string allow, string deny, bool expected)
    {
        await using var server = new NbdServer(NbdBackend.Compose(new TestPlugin(), From(allow, deny)));
        var pipes = new PipePair();
        await using var client = new WireClient(pipes.Client, server.ServeAsync(new TapStream(pipes.Server)));
        if (expected)
        {
            await client.GreetAsync();
            await client.GoAsync();
        }
        else
        {
            await client.ExpectGoneAsync(NbdDisconnectReason.Refused);
        }
    }

    private static IpFilter From(string allow, string deny)
        => (IpFilter)IpFilter.Entry.Create(new NbdParameters(
            "ip", new[] { ("allow", allow), ("deny", deny) }.Where(p => p.Item2.Length > 0)
                .Select(p => new KeyValuePair<string, string>(p.Item1, p.Item2))));

    private static async Task<bool> IsAllowedAsync(IpFilter filter, NbdPeer peer)
    {
        var connection = new NbdConnection(1, peer, default, _ => { }, () => { });
        NbdBackend chain = NbdBackend.Compose(new TestPlugin());
        try
        {
            await filter.PreconnectAsync(chain, connection, false, default);
            return true;
        }
        catch (NbdException e)
        {
            Assert.That(e.Error, Is.EqualTo(NbdError.PermissionDenied));
            return false;
        }
    }

    private sealed class VsockLike(uint cid, uint port) : EndPoint
    {
        public override AddressFamily AddressFamily => (AddressFamily)40;

        public override SocketAddress Serialize()
        {
            var address = new SocketAddress(AddressFamily.Unknown, 16);
            BitConverter.TryWriteBytes(address.Buffer.Span[4..], port);
            BitConverter.TryWriteBytes(address.Buffer.Span[8..], cid);
            return address;
        }
    }
}
