using System.Text;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>Strings in both directions ("Conventions").</summary>
public sealed class StringTests : WireTest
{
    private static readonly string[] Illegal = ["a\0b", "\ud800", new string('x', 4097), new string('é', 2049)];

    [TestCaseSource(nameof(Illegal))]
    [Property("Rule", "S001"), Property("Rule", "S002")]
    public void S001_S002_A_name_or_description_that_may_not_travel_is_refused_where_it_is_registered(string text)
    {
        var list = new ExportList();
        Assert.That(() => list.Add(text), Throws.ArgumentException);
        Assert.That(() => list.Add("name", text), Throws.ArgumentException);
        Assert.That(() => new NbdExportInfo { Size = 0, Description = text }, Throws.ArgumentException);
        Assert.That(() => new NbdExportInfo { Size = 0, CanonicalName = text }, Throws.ArgumentException);
        Assert.That(list, Is.Empty);
    }

    [Test, Property("Rule", "S002")]
    public async Task S002_Names_and_descriptions_of_4096_bytes_travel_in_both_directions()
    {
        string name = new('n', 4096);
        string description = new('d', 4096);
        ServerFixture server = await ServeAsync(new TestExport(name) { Description = description });
        WireClient client = await server.HaggleAsync();

        OptionReply listed = (await client.OptAsync(Opt.List)).Replies[0];
        Assert.That(listed.ServerName, Is.EqualTo(name));
        Assert.That(listed.ServerDescription, Is.EqualTo(description));
        OptionResult info = await client.InfoAsync(name, InfoType.Name, InfoType.Description);

        Assert.That(info.IsAck);
        Assert.That(info.Info(InfoType.Name)!.InfoText, Is.EqualTo(name));
        Assert.That(info.Info(InfoType.Description)!.InfoText, Is.EqualTo(description));
        await client.StructuredAsync();
        await client.SetMetaAsync(name, "base:allocation");
        await client.GoAsync(name);
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [TestCase(Opt.Info)]
    [TestCase(Opt.Go)]
    [TestCase(Opt.ListMeta)]
    [TestCase(Opt.SetMeta)]
    [Property("Rule", "S002"), Property("Rule", "P09")]
    [Property("Threat", "P09"), Property("Threat", "N12")]
    public async Task S002_P09_Names_that_break_the_rules_for_strings_are_invalid(uint option)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        foreach (byte[] name in IllegalNames())
        {
            byte[] data = option is Opt.Info or Opt.Go
                ? WireBytes.InfoRequest(name)
                : WireBytes.MetaRequest(name, "base:allocation");
            await client.ExpectOptAsync(Rep.Invalid, option, data);
        }
        await client.GoAsync();
        Assert.That(server.Plugin.Opened, Is.EqualTo(1), "no bad name reached the plugin");
    }

    [Test, Property("Rule", "S002"), Property("Rule", "P09")]
    [Property("Threat", "P09"), Property("Threat", "N12")]
    public async Task S002_P09_EXPORT_NAME_with_a_name_that_breaks_the_rules_ends_the_connection()
    {
        ServerFixture server = await ServeAsync();
        foreach (byte[] name in IllegalNames())
        {
            WireClient client = await server.HaggleAsync();
            await client.SendOptionAsync(Opt.ExportName, name);
            await client.ExpectGoneAsync();
        }
        Assert.That(server.Plugin.Opened, Is.Zero);
    }

    [TestCase(255)]
    [TestCase(256)]
    [TestCase(257)]
    [TestCase(1024)]
    [TestCase(4095)]
    [TestCase(4096)]
    [Property("Rule", "S001"), Property("Rule", "S002"), Property("Rule", "S191")]
    public async Task S001_S002_S191_The_error_for_an_unknown_name_stays_legal_however_long_the_name_is(int length)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        string wide = string.Concat(Enumerable.Repeat("\U0001F4BE", length / 4));
        foreach (string name in new[] { new string('n', length), wide })
        {
            // The message that comes back quotes the name; the client has judged its length and encoding.
            await client.ExpectOptAsync(Rep.Unknown, Opt.Info, WireBytes.InfoRequest(Encoding.UTF8.GetBytes(name)));
            await client.ExpectOptAsync(Rep.Unknown, Opt.Go, WireBytes.InfoRequest(Encoding.UTF8.GetBytes(name)));
        }
        await client.GoAsync();
    }

    [Test, Property("Rule", "S001"), Property("Rule", "S002"), Property("Rule", "S191")]
    public async Task S001_S002_S191_Messages_of_a_plugin_are_cleaned_and_cut_before_they_travel()
    {
        string[] messages =
        [
            "nul \0 inside", "lone \ud800 surrogate", new string('x', 70_000),
            string.Concat(Enumerable.Repeat("\U0001F4BE", 5000)), "x" + string.Concat(Enumerable.Repeat("é", 5000)),
        ];
        var export = new TestExport();
        var plugin = new TestPlugin(export);
        ServerFixture server = await ServeAsync(plugin);
        foreach (string message in messages)
        {
            WireClient client = await server.HaggleAsync();
            await client.StructuredAsync();
            plugin.OnOpen = (_, _) => throw new NbdException(NbdError.IoError, message);
            OptionResult failed = await client.TryGoAsync();
            Assert.That(failed.Type, Is.EqualTo(Rep.Unknown));
            Assert.That(failed.Final.Text, Is.Not.Empty);
            plugin.OnOpen = null;
            await client.GoAsync();
            export.Before = _ => throw new NbdException(NbdError.IoError, message);
            WireReply reply = await client.ExpectCallAsync(WireError.Io, Cmd.Read, 0, 512);
            Assert.That(reply.Message, Is.Not.Empty);
            export.Before = null;
            await client.ExpectAliveAsync(server.Plugin.Data);
        }
    }

    [Test, Property("Rule", "S003")]
    public async Task S003_The_messages_of_the_server_itself_stay_short()
    {
        ServerFixture server = await ServeAsync(new TestPlugin(new TestExport()) { DefaultExport = "" });
        WireClient client = await server.HaggleAsync();
        var texts = new List<string>();
        foreach (uint option in new uint[] { 0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, uint.MaxValue })
        {
            OptionResult result = await client.OptAsync(option, [1]);
            Assert.That(result.Final.IsError, $"option {option}");
            texts.Add(result.Final.Text);
        }
        await client.StructuredAsync();
        await client.GoAsync();
        foreach (ushort command in new ushort[] { 0, 3, 4, 5, 6, 7, 8, 9 })
        {
            texts.Add((await client.CallAsync(command, ulong.MaxValue, 5)).Message);
            texts.Add((await client.CallAsync(command, 0, 5, 0x8000)).Message);
        }

        Assert.That(texts.Select(text => Encoding.UTF8.GetByteCount(text)), Has.All.LessThanOrEqualTo(256));
        TestContext.Out.WriteLine(string.Join(Environment.NewLine, texts));
    }

    [Test, Property("Rule", "P09")]
    [Property("Threat", "P09"), Property("Threat", "N12"), Property("Threat", "nbdkit-1.44-names-in-logs")]
    public async Task P09_Names_are_compared_byte_for_byte_and_never_interpreted()
    {
        ServerFixture server = await ServeAsync(
            new TestPlugin(new TestExport("disk"), new TestExport("é")), new NbdServerOptions { MaxOpensInHandshake = 20 });
        WireClient client = await server.HaggleAsync();
        string[] strangers =
        [
            "Disk", "disk ", " disk", "e\u0301", "\u202edisk", "../../etc/passwd", "/etc/passwd", "CON", "disk\r\n", "\u001b[31m",
            "\ufffd",
        ];
        foreach (string name in strangers)
        {
            await client.ExpectOptAsync(Rep.Unknown, Opt.Info, WireBytes.InfoRequest(Encoding.UTF8.GetBytes(name)));
        }
        Assert.That((await client.InfoAsync("disk")).IsAck);
        Assert.That((await client.InfoAsync("é")).IsAck);
        Assert.That(
            server.Log.Entries.Select(entry => entry.Text),
            Has.None.Matches<string>(text => text.AsSpan().IndexOfAny("\r\n\u001b\u202e") >= 0),
            "names reach no log line raw");
    }

    private static IEnumerable<byte[]> IllegalNames()
    {
        yield return new byte[4097].Select(_ => (byte)'n').ToArray();
        yield return "a\0b"u8.ToArray();
        yield return "\0"u8.ToArray();
        yield return [0xff];
        yield return [0xfe];
        yield return [0xc0, 0xaf];
        yield return [0xe0, 0x80, 0xaf];
        yield return [0xed, 0xa0, 0x80];
        yield return [0xf4, 0x90, 0x80, 0x80];
        yield return [(byte)'a', 0xc3];
    }
}
