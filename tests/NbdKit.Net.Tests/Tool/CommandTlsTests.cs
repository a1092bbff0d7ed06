using NbdKit.Tests.Testing;
using NbdKit.Tool;

namespace NbdKit.Tests.Tool;

/// <summary>The options of the command about TLS.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class CommandTlsTests
{
    [Test]
    public async Task Required_tls_is_in_the_uri_and_the_variables_and_clients_verify_it()
    {
        Peer.Require("nbdinfo");
        using var folder = new ScratchDirectory();
        string pki = folder["my pki"];
        TestCertificates.Write(pki, TestCertificates.Alice);
        (int status, string output, string error) = await ToolProcess.RunAsync(
            "--tls=require", "--tls-certificates", pki, "--tls-verify-peer", "memory", "1M", "--run",
            "echo \"$tls|$tls_certificates|$tls_psk|$uri\"; nbdinfo --size \"$uri\"; nbdinfo --size \"nbd+unix://?socket=$unixsocket\"");
        Assert.That(status, Is.Not.Zero, "plain text is refused");
        string[] lines = output.TrimEnd('\n').Split('\n');
        Assert.That(lines[0], Does.StartWith($"2|{pki}||nbds+unix:///?socket=").And.EndWith($"&tls-certificates={pki.Replace(" ", "%20")}"));
        Assert.That(lines[1..], Is.EqualTo(new[] { "1048576" }), error);
    }

    [Test]
    public async Task With_certificates_tls_is_offered_and_not_required()
    {
        Peer.Require("nbdinfo");
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder.Path);
        (int status, string output, string error) = await ToolProcess.RunAsync(
            "--tls-certificates", folder.Path, "--filter=tls-fallback", "memory", "1M", "tlsreadme=no", "--run",
            "echo \"$tls|$uri\"; nbdinfo --size \"$uri\"; "
                + "nbdinfo --size \"nbds+unix://?socket=$unixsocket&tls-certificates=$tls_certificates\"");
        Assert.That(status, Is.Zero, error);
        string[] lines = output.TrimEnd('\n').Split('\n');
        Assert.That(lines[0], Does.StartWith("1|nbd+unix:///?socket=").And.Not.Contain("tls-certificates"));
        Assert.That(lines[1..], Is.EqualTo(new[] { "512", "1048576" }));
    }

    [TestCase(new[] { "--tls=require" }, "server-cert.pem")]
    [TestCase(new[] { "--tls=on" }, "server-cert.pem")]
    [TestCase(new string[0], "server-cert.pem")]
    public async Task A_directory_that_was_named_must_hold_certificates(string[] options, string expected)
    {
        using var folder = new ScratchDirectory();
        (int status, _, string error) = await ToolProcess.RunAsync(
            [.. options, "--tls-certificates", folder.Path, "memory", "1M", "--run", "true"]);
        Assert.That((status, error.Contains(expected)), Is.EqualTo((1, true)), error);
    }

    [Test]
    public async Task Without_certificates_tls_is_off_or_warned_about_or_an_error()
    {
        if (Directory.Exists(TlsSetup.SystemDirectory))
        {
            Assert.Ignore("There are certificates on this machine.");
        }
        using var home = new ScratchDirectory();
        foreach ((string[] options, int expected, string word) in new (string[], int, string)[]
        {
            ([], 0, ""), (["--tls=on"], 0, "no certificates were found"), (["--tls=require"], 1, "no certificates were found"),
            (["--tls-verify-peer"], 1, "no certificates were found"), (["--tls=off"], 0, ""),
        })
        {
            await using ToolProcess tool = ToolProcess.StartIn(
                new Dictionary<string, string> { ["HOME"] = home.Path },
                [.. options, "memory", "1M", "--run", "test \"$tls\" = 0"]);
            tool.Process.StandardInput.Close();
            (int status, _, string error) = await tool.EndAsync();
            Assert.That((status, error.Contains(word)), Is.EqualTo((expected, true)), $"{string.Join(' ', options)}: {error}");
        }
    }

    [Test]
    public void Certificates_are_looked_for_where_nbdkit_does()
    {
        Assert.That(TlsSetup.UsualDirectories(true, "/root"), Is.EqualTo(new[] { "/etc/pki/nbdkit" }));
        Assert.That(
            TlsSetup.UsualDirectories(false, "/home/me"), Is.EqualTo(new[] { "/home/me/.pki/nbdkit", "/home/me/.config/pki/nbdkit" }));
    }

    [TestCase("--tls-psk=/f", "pre-shared keys")]
    [TestCase("--tls=off --tls-verify-peer", "does not go together")]
    [TestCase("--tls=require --mask-handshake=0", "does not go together")]
    [TestCase("--tls-certificates=", "not empty")]
    public void What_cannot_work_is_refused(string arguments, string expected)
        => Assert.That(
            () => CommandLine.Parse([.. arguments.Split(' '), "memory"]),
            Throws.TypeOf<CommandException>().With.Message.Contains(expected));
}
