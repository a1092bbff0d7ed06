using System.ComponentModel;
using System.Diagnostics;

namespace NbdKit.Tests.Tool;

/// <summary>The command as other programs start it. A program that is not installed is a skip.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class CommandInteropTests
{
    private static readonly string Assembly = Path.Combine(AppContext.BaseDirectory, "nbdkit-net.dll");

    private static async Task<(int Status, string Output)> RunAsync(string program, params string[] arguments)
    {
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(30));
        Process process;
        try
        {
            process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true })!;
        }
        catch (Win32Exception)
        {
            Assert.Ignore($"{program} is not installed.");
            throw;
        }
        using (process)
        {
            string output = await process.StandardOutput.ReadToEndAsync(deadline.Token);
            await process.WaitForExitAsync(deadline.Token);
            return (process.ExitCode, output);
        }
    }

    [Test]
    public async Task A_socket_that_listens_already_is_taken_over()
        => Assert.That(
            await RunAsync("nbdinfo", "--size", "[", "dotnet", "exec", Assembly, "memory", "3M", "]"),
            Is.EqualTo((0, "3145728\n")));

    [Test]
    public async Task A_socket_that_listens_already_is_not_mixed_with_options()
        => Assert.That(
            (await RunAsync("nbdinfo", "--size", "[", "dotnet", "exec", Assembly, "-p0", "memory", "3M", "]")).Status,
            Is.Not.Zero);

    [Test]
    public async Task One_socket_is_both_standard_input_and_output()
    {
        const string Client = """
            import socket, struct, subprocess, sys
            ours, theirs = socket.socketpair()
            server = subprocess.Popen(sys.argv[1:], stdin=theirs, stdout=theirs)
            theirs.close()
            stream = ours.makefile('rwb')
            assert stream.read(16) == b'NBDMAGICIHAVEOPT'
            flags = stream.read(2)
            stream.write(b'\0\0' + flags + b'IHAVEOPT' + struct.pack('>II', 1, 0))
            stream.flush()
            print(struct.unpack('>QH', stream.read(10))[0])
            stream.write(struct.pack('>IHHQQI', 0x25609513, 0, 2, 0, 0, 0))
            stream.flush()
            print(stream.read(), server.wait())
            """;
        Assert.That(
            await RunAsync("python3", "-c", Client, "dotnet", "exec", Assembly, "-s", "memory", "3M"),
            Is.EqualTo((0, "3145728\nb'' 0\n")));
    }

    [Test]
    public async Task A_captive_client_connects()
    {
        await RunAsync("nbdinfo", "--version");
        Assert.That(
            await RunAsync("dotnet", "exec", Assembly, "memory", "5M", "-e", "a b", "--run", "nbdinfo --size \"$uri\""),
            Is.EqualTo((0, "5242880\n")));
    }

    [Test]
    public async Task The_command_ends_with_its_parent()
    {
        Assume.That(OperatingSystem.IsLinux());
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(30));
        var start = new ProcessStartInfo("/bin/sh") { RedirectStandardOutput = true };
        start.ArgumentList.Add("-c");
        start.ArgumentList.Add($"dotnet exec '{Assembly}' --exit-with-parent -i 127.0.0.1 -p0 memory 1M & wait");
        using Process parent = Process.Start(start)!;
        Assert.That(await parent.StandardOutput.ReadLineAsync(deadline.Token), Does.StartWith("nbd://"));
        parent.Kill();
        // The child has the other end of the pipe, which closes with it.
        Assert.That(await parent.StandardOutput.ReadToEndAsync(deadline.Token), Is.Empty);
    }
}
