using System.Diagnostics;
using System.Text.RegularExpressions;

namespace NbdKit.Tests;

/// <summary>The code of the README is real.</summary>
public sealed class ReadmeTests
{
    private string _folder = "";

    [SetUp]
    public void MakeFolder() => _folder = Directory.CreateTempSubdirectory("readme-").FullName;

    [TearDown]
    public void RemoveFolder() => Directory.Delete(_folder, recursive: true);

    [Test]
    public async Task First_program_and_the_examples_compile_and_the_program_serves()
    {
        string[] blocks = [.. Regex.Matches(ReadReadme(), "```csharp\n(.*?)```", RegexOptions.Singleline)
            .Select(match => match.Groups[1].Value)];
        Assert.That(blocks, Has.Length.EqualTo(5), "the first program, a plugin, a filter, a client and chains in chains");
        await File.WriteAllTextAsync(Path.Combine(_folder, "Program.cs"), blocks[0]);
        await File.WriteAllTextAsync(Path.Combine(_folder, "Plugin.cs"), "using NbdKit;\n" + blocks[1]);
        await File.WriteAllTextAsync(Path.Combine(_folder, "Filter.cs"), "using NbdKit;\n" + blocks[2]);
        await File.WriteAllTextAsync(
            Path.Combine(_folder, "Chains.cs"),
            "using NbdKit;\nusing NbdKit.Filters;\nusing NbdKit.Plugins;\n"
            + $"static class Chains\n{{\n    static NbdBackend Compose()\n    {{\n{blocks[4]}\nreturn exports;\n    }}\n}}\n");
        await File.WriteAllTextAsync(
            Path.Combine(_folder, "Clients.cs"),
            "using NbdKit;\nusing NbdKit.Plugins;\n"
            + $"static class Clients\n{{\n    static async Task RunAsync()\n    {{\n{blocks[3]}\n    }}\n}}\n");
        string library = typeof(NbdServer).Assembly.Location;
        string beside = Path.GetDirectoryName(library)!;
        await File.WriteAllTextAsync(Path.Combine(_folder, "First.csproj"), $"""
            <Project Sdk="Microsoft.NET.Sdk">
              <PropertyGroup>
                <OutputType>Exe</OutputType>
                <TargetFramework>net10.0</TargetFramework>
                <ImplicitUsings>enable</ImplicitUsings>
                <Nullable>enable</Nullable>
              </PropertyGroup>
              <ItemGroup>
                <Reference Include="{library}" />
                <Reference Include="{beside}/Microsoft.Extensions.*.dll" />
              </ItemGroup>
            </Project>
            """);
        (int built, string log) = await RunAsync("build -nologo -o out");
        Assert.That(built, Is.Zero, log);

        (int ran, string output) = await RunAsync("out/First.dll");
        Assert.That(ran, Is.Zero, output);
        Assert.That(output, Does.Match("^nbd\\+unix:///\\?socket=.+\\.sock\nend of input"));
    }

    [Test]
    public void Everything_of_the_catalogue_has_its_row_and_nothing_else_has_one()
    {
        var catalogue = new NbdCatalogue();
        IEnumerable<string> rows = Regex.Matches(ReadReadme(), @"^\| `\w+(?:Plugin|Filter)` \(`([\w-]+)`\) \|", RegexOptions.Multiline)
            .Select(match => match.Groups[1].Value);

        Assert.That(
            rows, Is.EquivalentTo(catalogue.Plugins.Select(plugin => plugin.Name).Concat(catalogue.Filters.Select(filter => filter.Name))));
    }

    /// <summary>What nbdkit 1.48 has, of its plugins and then its filters.</summary>
    [TestCase("blkio cc cdi curl data eval example1 file floppy full gcs golang guestfs info iso libvirt linuxdisk lua memory nbd nfs null "
        + "ocaml ondemand ones partitioning pattern perl python random rust S3 sh sparse-random split ssh tcl tmpdisk torrent vddk vram zero")]
    [TestCase("blocksize blocksize-policy bzip2 cache checkwrite count cow ddrescue delay error evil exitlast exitwhen exportname ext2 "
        + "extentlist fua gzip indexed-gzip ip limit log luks lzip map multi-conn nocache noextents nofilter noparallel nozero offset openonce "
        + "partition pause protect qcow2dec rate readahead readonly retry retry-request rotational scan spinning stats swab tar time-limit "
        + "tls-fallback truncate xor xz")]
    public void All_that_nbdkit_has_is_accounted_for(string names)
    {
        string text = ReadReadme();
        int start = text.IndexOf("## Beside nbdkit", StringComparison.Ordinal);
        string[] accounted = [.. text[start..text.IndexOf("\n## ", start + 1, StringComparison.Ordinal)].Split('\n')
            .Where(line => line.StartsWith("| ", StringComparison.Ordinal))
            .SelectMany(line => line.Split('|')[1].Split([' ', ',', ':'], StringSplitOptions.RemoveEmptyEntries))];

        Assert.That(names.Split(' ').Except(accounted), Is.Empty);
    }

    private async Task<(int Status, string Output)> RunAsync(string arguments)
    {
        var start = new ProcessStartInfo("dotnet", arguments)
        {
            WorkingDirectory = _folder,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(start)!;
        process.StandardInput.Close();
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> error = process.StandardError.ReadToEndAsync();
        using var limit = new CancellationTokenSource(TimeSpan.FromMinutes(3));
        await process.WaitForExitAsync(limit.Token);
        return (process.ExitCode, (await output) + (await error));
    }

    private static string ReadReadme()
    {
        string? folder = TestContext.CurrentContext.TestDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "NbdKit.Net.sln")))
        {
            folder = Path.GetDirectoryName(folder);
        }
        Assert.That(folder, Is.Not.Null, "the tests run inside the repository");
        return File.ReadAllText(Path.Combine(folder!, "README.md")).ReplaceLineEndings("\n");
    }
}
