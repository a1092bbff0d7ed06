using System.Text;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>
/// A client that reaches a limit is refused, delayed or cut off; others are served; and the log says why, once, with text of the
/// client's escaped and bounded.
/// </summary>
public sealed class LimitLogTests : WireTest
{
    // What a line may have beside 80 characters of a name, each escaped as \u{10ffff}, or 400 of a message.
    private const int LongestLine = 2000;

    private static readonly byte[][] EvilNames =
    [
        [.. "\r\nwarn: forged line"u8],
        [.. "\u001b[2J\u001b]0;title\a\b\u007f\u0085"u8],
        [.. "\u202Egnp.exe\u2028\u2029\u200b\ufeff\ue000"u8],
        [.. Encoding.UTF8.GetBytes(new string('\n', 4096))],
        [.. Encoding.UTF8.GetBytes(string.Concat(Enumerable.Repeat("\U0001f600", 1024)))],
        [.. Encoding.UTF8.GetBytes(new string('x', 4000) + "{Peer}{0}{{%s%n")],
        [0xff, 0xfe, 0x0a, 0xc0, 0x80],
        [.. "a\0b\n"u8],
    ];

    [TestCaseSource(typeof(LimitCases), nameof(LimitCases.All))]
    [Property("Threat", "P14"), Property("Threat", "P37")]
    public async Task The_reason_is_logged_once_and_others_are_served(object which)
    {
        var limit = (LimitCase)which;
        var time = new FakeTimeProvider();
        var gate = new Gate();
        var held = new TestExport("held") { Before = call => gate.PassAsync(call.CancellationToken) };
        var plugin = new TestPlugin(
            new TestExport("", 64 << 10) { Description = new string('d', 4096) }, held, new TestExport("slow"),
            new TestExport("vast") { Size = 1L << 40 })
        {
            OnOpen = (context, token) => context.ExportName == "slow" ? gate.PassAsync(token) : default,
            OnList = (list, _) =>
            {
                for (int i = 0; i < 100; i++)
                {
                    list.Add($"{i}", new string('d', 4096));
                }
            },
        };
        ServerFixture server = await ServeAsync(plugin, limit.Options(new NbdServerOptions { TimeProvider = time }));
        WireClient bystander = await server.TransmitAsync();
        await bystander.ExpectAliveAsync(plugin.Data);

        await limit.ReachAsync(new LimitScene(server, time, gate));

        bool stopped = limit.Name.StartsWith("StopTimeout", StringComparison.Ordinal);
        if (!stopped)
        {
            await bystander.ExpectAliveAsync(plugin.Data);
        }
        gate.Open();
        if (stopped)
        {
            Assert.That(() => plugin.Opened - plugin.Closed, Is.Zero.After(5000, 5), "closed when the call that nobody waited for is back");
        }
        // The bystander of a server that stops is told the same, of its own connection.
        LogEntry[] said = [.. server.Log.Entries.Where(entry => entry.Text.Contains(limit.Said, StringComparison.Ordinal))];
        Assert.That(
            said.Where(entry => !entry.Text.StartsWith("Connection 1 ", StringComparison.Ordinal)), Has.Exactly(1).Items,
            string.Join('\n', server.Log.Entries.Select(entry => entry.Text)));
        AssertClean(server.Log, null);
    }

    [Test, Property("Threat", "nbdkit-1.44-names-in-logs"), Property("Threat", "P09")]
    public async Task Text_of_a_client_is_escaped_and_bounded_wherever_it_is_logged([Values] bool known)
    {
        foreach (byte[] name in EvilNames)
        {
            string? text = TryText(name);
            var plugin = new TestPlugin([.. known && text is not null ? new[] { new TestExport(text) } : [new TestExport("disk")]])
            {
                OnOpen = (context, _) => known ? default : throw new IOException($"no file {context.ExportName}"),
            };
            ServerFixture server = await ServeAsync(plugin);
            WireClient client = await server.HaggleAsync();
            await client.OptAsync(Opt.Info, WireBytes.InfoRequest(name));
            await client.OptAsync(Opt.ListMeta, WireBytes.MetaRequest(name, Encoding.Latin1.GetString(name)[..Math.Min(name.Length, 1000)]));
            await client.OptAsync(Opt.Go, WireBytes.InfoRequest(name));
            WireClient old = await server.HaggleAsync();
            await old.SendOptionAsync(Opt.ExportName, name);
            await old.FinishAsync();
            await old.ReadToEndAsync();
            await old.ExpectEndAsync();
            AssertClean(server.Log, text);
        }
    }

    [Test, Property("Threat", "nbdkit-1.44-names-in-logs")]
    public async Task The_file_plugin_and_its_messages_keep_names_to_themselves()
    {
        using var folder = new ScratchDirectory();
        var log = new RecordingLog();
        await using var server = new NbdServer(
            NbdBackend.Compose(new FilePlugin { Directory = folder.Path }), new NbdServerOptions { LoggerFactory = log });
        await server.StartAsync();
        foreach (byte[] name in EvilNames)
        {
            var pipes = new PipePair();
            await using var client = new WireClient(pipes.Client, server.ServeAsync(pipes.Server));
            await client.GreetAsync();
            Assert.That((await client.OptAsync(Opt.Go, WireBytes.InfoRequest(name))).IsAck, Is.False);
            AssertClean(log, TryText(name));
        }
    }

    [Test, Property("Threat", "N18")]
    public async Task A_log_that_takes_its_time_over_a_refusal_holds_up_nobody_else()
    {
        using var release = new ManualResetEventSlim();
        var arrived = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var log = new RecordingLog
        {
            OnLogged = entry =>
            {
                if (entry.Text.Contains("clients are connected", StringComparison.Ordinal))
                {
                    arrived.TrySetResult();
                    release.Wait(WireClient.Deadline);
                }
            },
        };
        var plugin = new TestPlugin();
        await using var server = new NbdServer(
            NbdBackend.Compose(plugin), new NbdServerOptions { MaxConnections = 1, LoggerFactory = log });
        await server.StartAsync();
        WireClient client = Connect(server);
        await client.GreetAsync();
        await client.GoAsync();
        Task<WireClient> refused = Task.Run(() => Connect(server));
        await arrived.Task.Soon();
        try
        {
            Assert.That((await Task.Run(() => server.Connections).Soon()).Count, Is.EqualTo(1));
            await client.ExpectAliveAsync(plugin.Data);
            await client.SendRequestAsync(Cmd.Disc);
            await client.ExpectEndAsync(NbdDisconnectReason.ClientDone);
            WireClient next = await Task.Run(() => Connect(server)).Soon();
            await next.GreetAsync();
            await next.DisposeAsync();
        }
        finally
        {
            release.Set();
        }
        await (await refused).ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
    }

    private static WireClient Connect(NbdServer server)
    {
        var pipes = new PipePair();
        return new WireClient(pipes.Client, server.ServeAsync(pipes.Server));
    }

    private static string? TryText(byte[] name)
    {
        try
        {
            string text = new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(name);
            return text.Contains('\0') ? null : text;
        }
        catch (ArgumentException)
        {
            return null;
        }
    }

    private static void AssertClean(RecordingLog log, string? name)
    {
        bool isEvil = name is not null && name.EnumerateRunes().Any(IsUnsafe);
        foreach (LogEntry entry in log.Entries)
        {
            Assert.That(entry.Text, Has.Length.LessThan(LongestLine));
            Assert.That(entry.Text.EnumerateRunes().Where(IsUnsafe), Is.Empty, entry.Text);
            // What is logged with a message is written out with it.
            Assert.That(!isEvil || !$"{entry.Exception}".Contains(name!, StringComparison.Ordinal), $"{entry.Text}: {entry.Exception}");
        }
    }

    private static bool IsUnsafe(Rune rune)
        => Rune.IsControl(rune) || Rune.GetUnicodeCategory(rune) is System.Globalization.UnicodeCategory.Format
            or System.Globalization.UnicodeCategory.LineSeparator or System.Globalization.UnicodeCategory.ParagraphSeparator;
}
