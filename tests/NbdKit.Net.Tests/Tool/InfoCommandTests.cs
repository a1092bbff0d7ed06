using System.Text;
using System.Text.Json.Nodes;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using NbdKit.Tool;
using NbdKit.Tool.Info;
using ExportsPlugin = NbdKit.Tests.Interop.ExportsPlugin;

namespace NbdKit.Tests.Tool;

/// <summary>The verb <c>info</c>, beside nbdinfo.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class InfoCommandTests
{
    private static async Task<string> RunAsync(params string[] arguments)
    {
        var output = new MemoryStream();
        await InfoCommand.RunAsync(arguments, output).Soon();
        return Encoding.UTF8.GetString(output.ToArray());
    }

    [Test]
    public async Task An_export_is_described_as_by_nbdinfo([Values] SocketKind socket)
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 3 << 20 }), socket);

        string[] expected = Lines(await Peer.OutputAsync("nbdinfo", server.Uri));
        string[] actual = Lines(await RunAsync(server.Uri));

        Assert.That(actual, Is.EqualTo(expected));

        // The content is file(1)'s word, and the port and the packets may be written in another way.
        static string[] Lines(string text)
            => [.. text.Split('\n').Where(l => !l.StartsWith("\tcontent:") && !l.StartsWith("\turi:") && !l.StartsWith("protocol:"))];
    }

    [TestCase]
    [TestCase("--list")]
    public async Task JSON_has_what_that_of_nbdinfo_has(params string[] arguments)
    {
        await using InteropServer server = await InteropServer.StartAsync(new ExportsPlugin());
        string[] all = [.. arguments, "--json", arguments.Length > 0 ? server.Uri : server.UriOf("größer")];

        JsonNode expected = JsonNode.Parse(await Peer.OutputAsync("nbdinfo", all))!;
        JsonNode actual = JsonNode.Parse(await RunAsync(all))!;

        Assert.That((string?)actual["protocol"], Is.EqualTo((string?)expected["protocol"]));
        Assert.That((bool?)actual["TLS"], Is.False);
        Assert.That((bool?)actual["structured"], Is.True);
        Assert.That(actual["exports"]!.AsArray(), Has.Count.EqualTo(expected["exports"]!.AsArray().Count));
        foreach ((JsonNode? theirs, JsonNode? ours) in expected["exports"]!.AsArray().Zip(actual["exports"]!.AsArray()))
        {
            foreach ((string key, JsonNode? value) in theirs!.AsObject().Where(p => p.Key is not ("content" or "uri")))
            {
                Assert.That(ours![key]?.ToJsonString(), Is.EqualTo(value!.ToJsonString()), key);
            }
            Assert.That(NbdUri.Parse((string)ours!["uri"]!).ExportName, Is.EqualTo((string?)theirs["export-name"]));
        }
    }

    [Test]
    public async Task The_size_is_a_number_and_nothing_else()
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = 1_000_123 });

        Assert.That(await RunAsync("--size", server.Uri), Is.EqualTo("1000123\n"));
    }

    [TestCase("--map")]
    [TestCase("--map=base:allocation")]
    [TestCase("--map", "--totals")]
    public async Task The_map_is_that_of_nbdinfo(params string[] arguments)
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = (1 << 20) + 7 });
        await Peer.OutputAsync("qemu-io", "-f", "raw", "-c", "write 128k 64k", "-c", "write 512k 1k", server.Uri);

        string[] text = [.. arguments, server.Uri];
        string[] json = [.. arguments, "--json", server.Uri];

        Assert.That(await RunAsync(text), Is.EqualTo(await Peer.OutputAsync("nbdinfo", text)));
        JsonArray expected = JsonNode.Parse(await Peer.OutputAsync("nbdinfo", json))!.AsArray();
        JsonArray actual = JsonNode.Parse(await RunAsync(json))!.AsArray();
        Assert.That(actual, Has.Count.EqualTo(expected.Count));
        foreach ((JsonNode? theirs, JsonNode? ours) in expected.Zip(actual))
        {
            foreach ((string key, JsonNode? value) in theirs!.AsObject())
            {
                if (key == "percent")
                {
                    Assert.That((double)ours![key]!, Is.EqualTo((double)value!).Within(0.001));
                }
                else
                {
                    Assert.That(ours![key]?.ToJsonString(), Is.EqualTo(value!.ToJsonString()), key);
                }
            }
        }
    }

    [Test]
    public async Task A_disk_of_no_bytes_has_an_empty_map()
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = 0 });

        Assert.That(await RunAsync("--map", server.Uri), Is.Empty);
        Assert.That(JsonNode.Parse(await RunAsync("--map", "--totals", "--json", server.Uri))!.AsArray(), Is.Empty);
    }

    [Test]
    public async Task A_meta_context_that_is_not_there_is_said_not_to_be()
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = 512 });

        Assert.That(
            Assert.ThrowsAsync<CommandException>(() => RunAsync("--map=qemu:x", server.Uri))!.Message, Does.Contain("qemu:x"));
    }

    [Test]
    public async Task An_old_server_is_described_by_opening_its_export()
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 1 << 20 }),
            options: new NbdServerOptions { OfferFixedNewstyle = false });

        string text = await RunAsync(server.Uri);

        Assert.That(text, Does.StartWith("protocol: newstyle without TLS, using simple packets\n"));
        Assert.That(text, Does.Contain("\texport-size: 1048576 (1M)\n"));
        Assert.ThrowsAsync<NbdClientException>(() => RunAsync("--list", server.Uri));
    }

    [Test]
    public async Task What_a_server_says_cannot_act_on_a_terminal()
    {
        const string Nasty = "a\u001b[2J\u202e\"\\";
        await using InteropServer server = await InteropServer.StartAsync(
            new TestPlugin(new TestExport(Nasty) { Description = Nasty }));

        string text = await RunAsync("--list", server.Uri);

        Assert.That(text, Does.Contain("export=\"a\\u{1b}[2J\\u{202e}\\\"\\\\\":\n"));
        Assert.That(text.Any(c => c is '\u001b' or '\u202e'), Is.False);
        JsonNode json = JsonNode.Parse(await RunAsync("--list", "--json", server.Uri))!;
        Assert.That((string?)json["exports"]![0]!["export-name"], Is.EqualTo(Nasty));
    }

    [TestCase("nbdkit-net: the URI of an NBD server is missing")]
    [TestCase("--totals needs --map", "--totals", "nbd://h")]
    [TestCase("more than one URI", "nbd://h", "nbd://h")]
    [TestCase("no option --nonsense", "--nonsense", "nbd://h")]
    [TestCase("no option --map=", "--map=", "nbd://h")]
    [TestCase("only one of", "--size", "--list", "nbd://h")]
    [TestCase("The NBD URI has the scheme http", "http://h")]
    [TestCase("cannot connect", "nbd://127.0.0.1:1")]
    public async Task What_is_wrong_is_said_on_the_standard_error(string expected, params string[] arguments)
    {
        (int status, string output, string error) = await ToolProcess.RunAsync(["info", .. arguments]);

        Assert.That((status, output), Is.EqualTo((1, "")));
        Assert.That(error, Does.Contain(expected).And.StartWith("nbdkit-net: "));
        Assert.That(error.TrimEnd('\n'), Does.Not.Contain('\n'));
    }

    [Test]
    public async Task The_command_asks_a_server()
    {
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = 4096 });

        Assert.That(await ToolProcess.RunAsync("info", "--size", server.Uri), Is.EqualTo((0, "4096\n", "")));
        Assert.That((await ToolProcess.RunAsync("info", "--help")).Output, Does.Contain("--totals"));
    }
}
