using System.Net;
using System.Net.Sockets;

namespace NbdKit.Tests.Tool;

[Parallelizable(ParallelScope.All)]
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class CommandServingTests : IDisposable
{
    private const int Interrupt = 2;
    private const int Terminate = 15;

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("nbdkit-net-tests-");

    public void Dispose() => _directory.Delete(recursive: true);

    private string PathOf(string name) => Path.Combine(_directory.FullName, name);

    [Test]
    public async Task A_free_port_is_printed_served_and_left_in_order_on_SIGTERM()
    {
        await using ToolProcess tool = ToolProcess.Start("-p", "0", "memory", "1M", "--print-uri");
        string uri = await tool.LineAsync();
        Assert.That(uri, Does.Match("^nbd://localhost:[1-9][0-9]*/$"));
        await using (Stream client = await HandshakeClient.ConnectAsync(uri, tool.Deadline))
        {
            (_, long size, ushort flags) = await HandshakeClient.OpenAsync(client, client, tool.Deadline);
            Assert.That((size, flags & 3), Is.EqualTo((1 << 20, 1)));
            Assert.That(await HandshakeClient.ReadAsync(client, client, 0, 4096, tool.Deadline), Is.All.Zero);
            await HandshakeClient.DisconnectAsync(client, tool.Deadline);
        }
        tool.Signal(Terminate);
        Assert.That(await tool.EndAsync(), Is.EqualTo((0, "", "")));
    }

    [Test]
    public async Task A_client_that_is_idle_does_not_hold_up_the_end()
    {
        await using ToolProcess tool = ToolProcess.Start("-i", "127.0.0.1", "-p0", "memory", "1M");
        string uri = await tool.LineAsync();
        Assert.That(uri, Does.StartWith("nbd://127.0.0.1:"));
        await using Stream client = await HandshakeClient.ConnectAsync(uri, tool.Deadline);
        await HandshakeClient.OpenAsync(client, client, tool.Deadline);
        tool.Signal(Interrupt);
        Assert.That((await tool.EndAsync()).Status, Is.Zero);
    }

    [Test]
    public async Task A_private_Unix_socket_is_removed_at_the_end()
    {
        await using ToolProcess tool = ToolProcess.StartIn(
            new Dictionary<string, string> { ["TMPDIR"] = _directory.FullName }, "-U", "-", "memory", "1M", "-r");
        string uri = await tool.LineAsync();
        Assert.That(uri, Does.StartWith("nbd+unix:///?socket="));
        Assert.That(_directory.GetDirectories("nbdkit-net-*"), Has.Length.EqualTo(1));
        await using (Stream client = await HandshakeClient.ConnectAsync(uri, tool.Deadline))
        {
            (_, _, ushort flags) = await HandshakeClient.OpenAsync(client, client, tool.Deadline);
            Assert.That(flags & 2, Is.EqualTo(2));
        }
        tool.Signal(Terminate);
        Assert.That((await tool.EndAsync()).Status, Is.Zero);
        Assert.That(_directory.GetDirectories("nbdkit-net-*"), Is.Empty);
    }

    [Test]
    public async Task The_pid_file_is_written_and_stays_and_the_socket_goes()
    {
        await using ToolProcess tool = ToolProcess.Start("-U", PathOf("s"), "-P", PathOf("pid"), "-e", "a b", "memory", "1M");
        Assert.That(await tool.LineAsync(), Does.StartWith("nbd+unix:///a%20b?socket="));
        Assert.That(File.ReadAllText(PathOf("pid")), Is.EqualTo($"{tool.Process.Id}\n"));
        Assert.That(File.Exists(PathOf("s")), Is.True);
        tool.Signal(Terminate);
        Assert.That((await tool.EndAsync()).Status, Is.Zero);
        Assert.That((File.Exists(PathOf("pid")), File.Exists(PathOf("s"))), Is.EqualTo((true, false)));
    }

    [Test]
    public async Task The_options_reach_the_handshake()
    {
        await using ToolProcess tool = ToolProcess.Start("-U", PathOf("s"), "--mask-handshake=0", "memory", "1M");
        await using Stream client = await HandshakeClient.ConnectAsync(await tool.LineAsync(), tool.Deadline);
        (ushort handshake, long size, _) = await HandshakeClient.OpenAsync(client, client, tool.Deadline);
        Assert.That((handshake, size), Is.EqualTo(((ushort)0, 1L << 20)));
    }

    [Test]
    public async Task A_captive_command_sees_the_server_and_gives_its_status()
    {
        (int status, string output, string error) = await ToolProcess.RunAsync(
            "memory", "1M", "-e", "it's", "--run",
            "echo \"$uri|$nbd|$port|$unixsocket|$exportname|$tls\"; test -S \"$unixsocket\" && exit 7");
        Assert.That((status, error), Is.EqualTo((7, "")));
        string[] fields = output.TrimEnd('\n').Split('|');
        using (Assert.EnterMultipleScope())
        {
            Assert.That(fields[0], Does.StartWith("nbd+unix:///it").And.Contain("?socket="));
            Assert.That(fields[1], Is.EqualTo(fields[0]));
            Assert.That(fields[2], Is.Empty);
            Assert.That(fields[0], Does.EndWith(fields[3]).Or.EndWith(Uri.EscapeDataString(fields[3])));
            Assert.That(fields[4..], Is.EqualTo(new[] { "it's", "0" }));
            Assert.That(Directory.Exists(Path.GetDirectoryName(fields[3])), Is.False);
        }
    }

    [Test]
    public async Task A_captive_command_serves_copies_and_looks_with_nothing_but_itself()
    {
        string copy = PathOf("copy.img");
        (int status, string output, string error) = await ToolProcess.RunAsync(
            "pattern", "1M", "--run", $"nbdkit_net copy --hash \"$uri\" '{copy}' && nbdkit_net info --size \"$uri\"");
        Assert.That((status, error), Is.EqualTo((0, "")));
        Assert.That(output, Does.EndWith("1048576\n"));
        Assert.That(new FileInfo(copy).Length, Is.EqualTo(1 << 20));
        Assert.That(
            output, Does.Contain(Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(await File.ReadAllBytesAsync(copy)))));
    }

    [Test]
    public async Task A_captive_command_over_TCP_sees_the_port_and_the_URI_is_printed_first()
    {
        (int status, string output, _) = await ToolProcess.RunAsync(
            "memory", "1M", "-p0", "--print-uri", "--run", "echo \"$port|$unixsocket\"; kill -KILL $$");
        Assert.That(status, Is.EqualTo(128 + 9));
        string[] lines = output.Split('\n');
        Assert.That(lines[0], Does.Match("^nbd://localhost:[0-9]+/$"));
        Assert.That(lines[1], Is.EqualTo(new Uri(lines[0]).Port + "|"));
    }

    [Test]
    public async Task SIGTERM_reaches_the_captive_command()
    {
        await using ToolProcess tool = ToolProcess.Start("memory", "1M", "--run", "echo ready; exec sleep 60");
        Assert.That(await tool.LineAsync(), Is.EqualTo("ready"));
        tool.Signal(Terminate);
        Assert.That((await tool.EndAsync()).Status, Is.EqualTo(128 + Terminate));
    }

    [Test]
    public async Task A_second_signal_ends_the_command_at_once()
    {
        await using ToolProcess tool = ToolProcess.Start(
            "memory", "1M", "--run", "trap '' INT TERM; echo $$; cat >/dev/null; echo still here");
        string shell = await tool.LineAsync();
        tool.Signal(Interrupt);
        // The signals must not merge into one.
        tool.Signal(Terminate);
        await tool.Process.WaitForExitAsync(tool.Deadline);
        Assert.That(tool.Process.ExitCode, Is.EqualTo(128 + Interrupt).Or.EqualTo(128 + Terminate));
        tool.Process.StandardInput.Close();
        Assert.That(await tool.Process.StandardOutput.ReadToEndAsync(tool.Deadline), Is.EqualTo("still here\n"), shell);
    }

    [Test]
    public async Task A_single_client_is_served_on_standard_input_and_output()
    {
        await using ToolProcess tool = ToolProcess.Start("-s", "--print-uri", "memory", "64K");
        Stream input = tool.Process.StandardOutput.BaseStream;
        Stream output = tool.Process.StandardInput.BaseStream;
        (_, long size, _) = await HandshakeClient.OpenAsync(input, output, tool.Deadline);
        Assert.That(size, Is.EqualTo(65536));
        Assert.That(await HandshakeClient.ReadAsync(input, output, 512, 512, tool.Deadline), Has.Length.EqualTo(512));
        await HandshakeClient.DisconnectAsync(output, tool.Deadline);
        Assert.That(await tool.EndAsync(), Is.EqualTo((0, "", "")));
    }

    [Test]
    public async Task A_single_client_that_vanishes_or_a_signal_ends_the_command()
    {
        await using ToolProcess vanishing = ToolProcess.Start("-s", "memory", "64K");
        vanishing.Process.StandardInput.Close();
        Assert.That((await vanishing.EndAsync()).Status, Is.Zero);

        await using ToolProcess stopped = ToolProcess.Start("-s", "memory", "64K");
        await HandshakeClient.OpenAsync(
            stopped.Process.StandardOutput.BaseStream, stopped.Process.StandardInput.BaseStream, stopped.Deadline);
        stopped.Signal(Terminate);
        Assert.That((await stopped.EndAsync()).Status, Is.Zero);
    }

    [Test]
    public async Task A_port_that_is_taken_is_named()
    {
        using var taken = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        taken.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        taken.Listen();
        string endPoint = taken.LocalEndPoint!.ToString()!;
        (int status, string output, string error) = await ToolProcess.RunAsync(
            "-i", "127.0.0.1", "-p", endPoint.Split(':')[1], "memory", "1M");
        Assert.That((status, output), Is.EqualTo((1, "")));
        Assert.That(error, Does.StartWith($"nbdkit-net: cannot listen on {endPoint}: ").And.Match("^[^\n]+\n$"));
    }

    [Test]
    public async Task A_pid_file_that_cannot_be_written_stops_the_start()
    {
        (int status, string output, string error) = await ToolProcess.RunAsync(
            "-U", PathOf("s"), "-P", "/no/such/pid", "memory", "1M");
        Assert.That((status, output), Is.EqualTo((1, "")));
        Assert.That(error, Does.StartWith("nbdkit-net: cannot write the process id: "));
        Assert.That(File.Exists(PathOf("s")), Is.False);
    }

    [Test]
    public async Task Arguments_come_from_a_file()
    {
        File.WriteAllText(PathOf("arguments"), $"# what to serve\n--unix={PathOf("s")}\nmemory\n1M\n");
        await using ToolProcess tool = ToolProcess.Start("@" + PathOf("arguments"));
        Assert.That(await tool.LineAsync(), Does.EndWith("/s").Or.EndWith("%2Fs"));
    }
}
