using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>Exports that need TLS on a server that does not require it (SELECTIVETLS).</summary>
public sealed class TlsExportTests : WireTest
{
    private static readonly NbdServerOptions PlainPublic = new()
    {
        Tls = new NbdServerTls(TestCertificates.Server) { IsRequired = false, AllowsPlainText = name => name == "public" },
    };

    private static TestPlugin Exports() => new(new TestExport("public"), new TestExport("secret")) { DefaultExport = "secret" };

    [Test, Property("Rule", "S072"), Property("Rule", "S073"), Property("Rule", "P38")]
    [Property("Threat", "P38")]
    public async Task S072_S073_P38_An_export_that_needs_tls_and_one_that_does_not_exist_get_the_same_bytes()
    {
        ServerFixture server = await ServeAsync(Exports(), PlainPublic);
        foreach (uint option in new[] { Opt.Info, Opt.Go })
        {
            var replies = new List<string>();
            foreach (string name in new[] { "secret", "absent", "" })
            {
                WireClient client = await server.HaggleAsync();
                OptionReply reply = await client.ExpectOptAsync(
                    Rep.TlsRequired, option, WireBytes.InfoRequest(System.Text.Encoding.UTF8.GetBytes(name), 0, 1, 2, 3));
                replies.Add(Convert.ToHexString(reply.Data));
                await client.ExpectHagglingAsync();
            }
            Assert.That(replies.Distinct().Count(), Is.EqualTo(1));
        }
        foreach (uint option in new[] { Opt.ListMeta, Opt.SetMeta })
        {
            var replies = new List<string>();
            foreach (string name in new[] { "secret", "absent", "" })
            {
                WireClient client = await server.HaggleAsync();
                await client.StructuredAsync();
                OptionReply reply = await client.ExpectOptAsync(
                    Rep.Unknown, option, WireBytes.MetaRequest(System.Text.Encoding.UTF8.GetBytes(name), "base:allocation"));
                replies.Add(Convert.ToHexString(reply.Data));
            }
            Assert.That(replies.Distinct().Count(), Is.EqualTo(1));
        }
        Assert.That(server.Plugin.Opened, Is.Zero, "no layer was asked");
    }

    [Test, Property("Rule", "S074"), Property("Rule", "S039")]
    public async Task S074_S039_Export_name_of_an_export_that_needs_tls_is_cut_off()
    {
        ServerFixture server = await ServeAsync(Exports(), PlainPublic);
        foreach (string name in new[] { "secret", "absent", "" })
        {
            WireClient client = await server.HaggleAsync();
            await client.SendOptionAsync(Opt.ExportName, System.Text.Encoding.UTF8.GetBytes(name));
            await client.ExpectGoneAsync(NbdDisconnectReason.TlsRequired);
        }
        await (await server.HaggleAsync()).ExportNameAsync("public");
    }

    [Test, Property("Rule", "S075"), Property("Rule", "S076")]
    public async Task S075_S076_What_needs_no_tls_works_in_plain_text_and_goes_on_to()
    {
        ServerFixture server = await ServeAsync(Exports(), PlainPublic);
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        Assert.That((await client.OptAsync(Opt.List)).IsAck);
        Assert.That((await client.ListMetaAsync("secret")).Type, Is.Not.EqualTo(Rep.TlsRequired));
        Assert.That((await client.SetMetaAsync("public", "base:allocation")).IsAck);
        await client.ExpectHagglingAsync();
        await client.GoAsync("public");
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S051"), Property("Rule", "S053")]
    public async Task S051_S053_Exports_that_need_tls_are_listed_only_inside_it_and_what_is_listed_works()
    {
        ServerFixture server = await ServeAsync(Exports(), PlainPublic);
        WireClient client = await server.HaggleAsync();
        Assert.That(Names(await client.OptAsync(Opt.List)), Is.EqualTo(["public"]));
        Assert.That((await client.InfoAsync("public")).IsAck);

        WireClient inside = await client.StartTlsAsync();
        string[] all = Names(await inside.OptAsync(Opt.List));
        Assert.That(all, Is.EqualTo(["public", "secret"]));
        foreach (string name in all)
        {
            Assert.That((await inside.InfoAsync(name)).IsAck);
        }
        await inside.GoAsync("");
        Assert.That(server.Server.Connections.Last().ExportName, Is.EqualTo(""));
    }

    private static string[] Names(OptionResult list)
        => [.. list.Before.Select(reply => System.Text.Encoding.UTF8.GetString(reply.Data.AsSpan(4))).Order()];
}
