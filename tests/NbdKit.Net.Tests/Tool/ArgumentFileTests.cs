using NbdKit.Tool;

namespace NbdKit.Tests.Tool;

public sealed class ArgumentFileTests
{
    private string _file = "";

    [SetUp]
    public void CreateFile() => _file = Path.GetTempFileName();

    [TearDown]
    public void DeleteFile() => File.Delete(_file);

    [Test]
    public void A_file_stands_for_its_lines()
    {
        File.WriteAllText(_file, "# a comment\n--unix=/my socket\n\n   \t\nmemory\r\n  # another\n  1G  \n@other");
        Assert.That(
            ArgumentFile.Expand(["-r", "@" + _file, "-v"]),
            Is.EqualTo(new[] { "-r", "--unix=/my socket", "memory", "1G", "@other", "-v" }));
    }

    [Test]
    public void After_two_dashes_and_alone_the_sign_is_an_ordinary_one()
        => Assert.That(ArgumentFile.Expand(["@", "--", "@" + _file]), Is.EqualTo(new[] { "@", "--", "@" + _file }));

    [Test]
    public void A_file_that_cannot_be_read_is_named()
        => Assert.That(
            () => ArgumentFile.Expand(["@/no/such/file"]),
            Throws.TypeOf<CommandException>().With.Message.Contains("/no/such/file"));
}
